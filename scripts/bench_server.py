"""A web server of files on this machine, each of whose answers takes a while; see bench_io.

python -m tnet.scripts.bench_server FOLDER SECONDS

It prints its port, and ends when its standard input does.
"""

import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD, whole files or one range of them."""

    protocol_version = "HTTP/1.1"  # which keeps connections open
    folder: Path
    delay: float

    def do_GET(self) -> None:
        """Send a file or a part of it."""
        time.sleep(self.delay)
        path = (self.folder / self.path.partition("?")[0].strip("/")).resolve()
        if not path.is_file() or not path.is_relative_to(self.folder):
            self._answer(404, b"")
            return
        size = path.stat().st_size
        wanted = _RANGE.match(self.headers.get("Range", ""))
        if wanted is None:
            self._answer(200, path.read_bytes())
            return
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= end:
            self._answer(416, b"", f"bytes */{size}")
            return
        with path.open("rb") as file:
            file.seek(start)
            self._answer(206, file.read(end - start), f"bytes {start}-{end - 1}/{size}")

    do_HEAD = do_GET

    def _answer(self, status: int, content: bytes, part: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if part is not None:
            self.send_header("Content-Range", part)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    """Lets many connect at once; those beyond the usual five would try again after a second."""

    request_queue_size = 256


def serve(folder: Path, delay: float) -> None:
    """Serve a folder on a free port of this machine until the standard input ends."""
    _Handler.folder, _Handler.delay = folder.resolve(), delay
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]))
