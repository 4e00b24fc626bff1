"""Zarr stores on a web server read as on this machine; a server that fails ends in words."""

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import zarr
from make_images import HEIGHT, WIDTH, truth, write_ome_zarr, write_zarr

from tnet.adapters.limits import Limits
from tnet.adapters.storage.codecs import with_checksum
from tnet.adapters.storage.seal import SEAL, Seal, Sealed, digest_of
from tnet.adapters.zarr.opening import open_zarr
from tnet.adapters.zarr.remote import open_remote
from tnet.errors import DataError, UnsupportedImage
from tnet.geometry import Region

WHOLE = Region(0, 0, WIDTH, HEIGHT)
SIZE = (WIDTH, HEIGHT)


class Server(ThreadingHTTPServer):
    """Serves a folder, with ranges of bytes, as slowly as it is told."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.delay = 0.0
        self.status = 200
        self.asked: list[str] = []
        self.busy = self.busiest = 0
        self.lock = threading.Lock()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits for 40 ms
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked.append(self.path)
            self.server.busy += 1
            self.server.busiest = max(self.server.busy, self.server.busiest)
        try:
            time.sleep(self.server.delay)
            self._answer()
        except ConnectionError:
            self.close_connection = True  # who asked has gone away
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def _answer(self) -> None:
        file = self.server.root / self.path.lstrip("/")
        status = self.server.status if file.is_file() else 404
        content = file.read_bytes() if status == 200 else b""
        headers = {"ETag": f'"{digest_of(content)}"'}  # without which a bucket is not read
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked and status == 200:
            first, last, length = asked[1], asked[2], len(content)
            start = int(first) if first else max(0, length - int(last))
            stop = min(length, int(last) + 1) if first and last else length
            status = 206 if start < stop else 416
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{length}"
            if status == 416:
                headers["Content-Range"] = f"bytes */{length}"
            content = content[start:stop]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def seal(path: Path) -> Path:
    content = {
        f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()
    }
    (path / SEAL).parent.mkdir(exist_ok=True)
    listed = {name: Sealed(len(data), digest_of(data)) for name, data in content.items()}
    (path / SEAL).write_bytes(Seal(listed).to_bytes())
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_remote_image_is_the_local_one(server: Server, tmp_path: Path, version: str) -> None:
    path = write_ome_zarr(tmp_path / "i.zarr", truth(), version=version)
    here, there = open_zarr(path), open_remote(server.url("i.zarr"))
    assert there.levels == here.levels
    assert (there.mpp, there.background) == (here.mpp, here.background)
    assert there.name == server.url("i.zarr")
    np.testing.assert_array_equal(there.read(WHOLE, SIZE), truth())
    regions = [Region(x, 7, 90 * s, 80 * s) for x in (0, 64, 101) for s in (1, 2, 1.7)]
    np.testing.assert_array_equal(
        there.read_many(regions, (45, 40)), here.read_many(regions, (45, 40))
    )
    assert there.read_many([Region(-10, -10, 30, 30), WHOLE], (30, 30)).shape == (2, 30, 30, 3)
    there.close()
    np.testing.assert_array_equal(there.read(WHOLE, SIZE), truth())


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_a_bucket_on_a_server_of_ones_own(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (tmp_path / "bucket").mkdir()
    seal(write_ome_zarr(tmp_path / "bucket" / "i.zarr", truth()))
    monkeypatch.setenv(variable, f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    there = open_remote("s3://bucket/i.zarr")
    np.testing.assert_array_equal(there.read(WHOLE, SIZE), truth())
    assert all(path.startswith("/bucket/i.zarr/") for path in server.asked)
    with pytest.raises(UnsupportedImage, match=r"s3://bucket/other\.zarr holds no zarr"):
        open_remote("s3://bucket/other.zarr")


def test_slashes_and_arrays_by_themselves(server: Server, tmp_path: Path) -> None:
    write_zarr(tmp_path / "i.zarr", truth(), shards=True)
    np.testing.assert_array_equal(open_remote(server.url("i.zarr/")).read(WHOLE, SIZE), truth())


@pytest.mark.parametrize("sharded", [False, True])
def test_remote_jpeg_chunks(server: Server, tmp_path: Path, sharded: bool) -> None:
    path = write_zarr(tmp_path / "i.zarr", truth(), shards=sharded)
    metadata = json.loads((path / "zarr.json").read_text())
    codecs = [{"name": "imagecodecs_jpeg", "configuration": {}}, {"name": "crc32c"}]
    if sharded:
        metadata["codecs"][0]["configuration"]["codecs"] = codecs
    else:
        metadata["codecs"] = codecs
    (path / "zarr.json").write_text(json.dumps(metadata))
    tile = imagecodecs.jpeg8_encode(truth()[:64, :64].copy(), level=95)
    chunk = with_checksum(bytes(tile))
    for file in (path / "c").rglob("0"):
        if file.is_file():
            index = np.array([[i * len(chunk), len(chunk)] for i in range(4)], "<u8").tobytes()
            file.write_bytes(chunk * 4 + with_checksum(index) if sharded else chunk)
    there = open_remote(server.url("i.zarr"))
    wanted = np.tile(imagecodecs.jpeg8_decode(tile), (4, 5, 1))[:HEIGHT, :WIDTH]
    np.testing.assert_array_equal(there.read(WHOLE, SIZE), wanted)
    server.asked.clear()
    np.testing.assert_array_equal(there.read(WHOLE, SIZE), wanted)
    assert not server.asked  # decoded chunks stay
    file = path / "c/1/1/0"
    file.write_bytes(file.read_bytes()[:-5] + b"12345")
    there.close()
    with pytest.raises(DataError, match=r"damaged or unreadable chunk in level 0 at x \d+ to "):
        open_remote(server.url("i.zarr")).read(WHOLE, SIZE)


def test_many_requests_are_on_their_way_at_once(server: Server, tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "i.zarr", truth())
    there = open_remote(server.url("i.zarr"))
    server.delay, server.busiest = 0.05, 0
    there.read_many([Region(x, 0, 60, 60) for x in range(0, 240, 10)], (60, 60))
    assert server.busiest >= 4  # all five chunks, less what a slow machine delays
    server.busiest = 0
    there.read_many([Region(x, 64, 60, 128) for x in range(0, 240, 10)], (40, 80))
    assert server.busiest >= 4


def test_a_remote_store_that_is_sealed_is_read_strictly(server: Server, tmp_path: Path) -> None:
    path = seal(write_ome_zarr(tmp_path / "i.zarr", truth()))
    np.testing.assert_array_equal(open_remote(server.url("i.zarr")).read(WHOLE, SIZE), truth())
    (path / "s0/c/0/1/2").unlink()
    with pytest.raises(
        DataError, match=r"lacks a chunk .* in level 0 at x 128 to 192, y 64 to 128"
    ):
        open_remote(server.url("i.zarr")).read(WHOLE, SIZE)
    (path / "s1/zarr.json").write_text((path / "s1/zarr.json").read_text() + " ")
    with pytest.raises(DataError, match=r"s1/zarr.json has been changed or damaged"):
        open_remote(server.url("i.zarr"))
    (path / SEAL).write_text("{}")
    with pytest.raises(DataError, match=r"the seal of http://.* is damaged"):
        open_remote(server.url("i.zarr"))


def test_a_damaged_remote_chunk_is_named(server: Server, tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "i.zarr", truth())
    (path / "s0/c/0/1/2").write_bytes(b"no pixels")
    with pytest.raises(
        DataError, match=r"unreadable chunk in level 0 at x 128 to 192, y 64 to 128"
    ):
        open_remote(server.url("i.zarr")).read(WHOLE, SIZE)


def test_groups_that_tell_their_arrays_are_read(server: Server, tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "levels.zarr", mode="w", zarr_format=2)
    for name, side in (("0", 100), ("1", 50)):
        group.create_array(name, shape=(side, side), dtype="u1", chunks=(50, 50))[...] = side
    with pytest.raises(UnsupportedImage, match="does not tell its arrays"):
        open_remote(server.url("levels.zarr"))
    zarr.consolidate_metadata(tmp_path / "levels.zarr")
    image = open_remote(server.url("levels.zarr"))
    assert [level.width for level in image.levels] == [100, 50]
    assert image.read(Region(0, 0, 100, 100), (50, 50))[0, 0, 0] == 50


def test_what_a_remote_store_declares_is_held_against_the_limits(
    server: Server, tmp_path: Path
) -> None:
    path = write_zarr(tmp_path / "i.zarr", truth())
    with pytest.raises(UnsupportedImage, match="--max-pixels"):
        open_remote(server.url("i.zarr"), Limits(pixels=10))
    (path / "zarr.json").write_text('{"a": "' + "b" * 2**23 + '"}')
    with pytest.raises(UnsupportedImage, match="larger than the 8 MiB"):
        open_remote(server.url("i.zarr"))


def test_nothing_there(server: Server) -> None:
    with pytest.raises(UnsupportedImage, match="holds no zarr metadata"):
        open_remote(server.url("nothing.zarr"))


def test_nobody_there(tmp_path: Path) -> None:
    with Server(tmp_path) as gone:
        url = gone.url("i.zarr")
    with pytest.raises(DataError, match="cannot be reached") as caught:
        open_remote(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://", "s3://", "gs:///"])
def test_no_address(url: str) -> None:
    with pytest.raises(DataError):
        open_remote(url)


def test_a_server_that_does_not_answer(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tnet.adapters.zarr.remote.PATIENCE", 1.0)
    write_ome_zarr(tmp_path / "i.zarr", truth())
    there = open_remote(server.url("i.zarr"))
    server.delay = 3.0
    start = time.monotonic()
    with pytest.raises(DataError, match="no answer in time"):
        there.read(WHOLE, SIZE)
    with pytest.raises(DataError, match="no answer in time"):
        open_remote(server.url("i.zarr"))
    assert time.monotonic() - start < 20
    server.delay = 0.0


@pytest.mark.parametrize("status", [403, 503])
def test_a_server_that_refuses(server: Server, tmp_path: Path, status: int) -> None:
    write_ome_zarr(tmp_path / "i.zarr", truth())
    there = open_remote(server.url("i.zarr"))
    server.status = status
    with pytest.raises(DataError, match="cannot be reached"):
        there.read(WHOLE, SIZE)
    with pytest.raises(DataError):
        open_remote(server.url("i.zarr"))
