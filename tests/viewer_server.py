"""A running viewer, the walks that it shows, and a client that sends what no browser would."""

import http.client
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import numpy as np

from tnet.adapters.limits import DEFAULT
from tnet.geometry import Region
from tnet.record import Glimpse, Walk, softmax
from tnet.scripts.view import listening, server_of
from tnet.scripts.viewer.assets import Asset
from tnet.scripts.viewer.cohort import Entry, find_entries
from tnet.scripts.viewer.gallery import Gallery
from tnet.scripts.viewer.server import Shown, application, by_id

TOKEN = "only-for-tests"
EVIL = "<img src=x onerror=alert(1)>"


def walk_of(image: str, size: tuple[int, int], *regions: Region, logit: float = 1.0) -> Walk:
    """A walk of two levels; the deeper ones are all chosen in the first look."""
    weight = 1 / (len(regions) + 1)
    worth = (logit * weight, 0.0)
    first = Glimpse(0, Region(0, 0, *size), None, None, None, 1.0, 0.0, 0, weight, worth)
    closer = [
        Glimpse(1, region, 0, 0, rank, 0.25, -1.4, rank, weight, worth)
        for rank, region in enumerate(regions)
    ]
    logits = np.array([logit, 0.0])
    return Walk(
        image=image,
        width=size[0],
        height=size[1],
        classes=("calm", EVIL),
        logits=logits,
        probabilities=softmax(list(logits)),
        outcome="class",
        bias=(0.0, 0.0),
        glimpses=(first, *closer),
        view=(64, 48),
        spacing=(0.5, 0.5),
        unit="µm",
        seconds=0.5,
    )


def write_walk(folder: Path, name: str, walk: Walk) -> Path:
    """Write a walk as `tnet classify --out` does."""
    file = folder / "walks" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(walk.to_json(), encoding="utf-8")
    return file


@dataclass(frozen=True)
class Answer:
    """What the server said; the names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Running:
    """A viewer that listens.

    Attributes:
        port: on the loopback interface.
        entries: that it shows.
    """

    port: int
    entries: Sequence[Entry]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send a request with the cookie, as it stands: nothing of the path is made safe.

        Args:
            path: with its query.
            method: of HTTP.
            headers: others than a browser with the cookie sends; underscores become hyphens, and
                an empty text leaves the header out.
        """
        sent = {"host": f"127.0.0.1:{self.port}", "cookie": f"tnet-view-{self.port}={TOKEN}"}
        sent |= {name.replace("_", "-"): text for name, text in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, text in sent.items():
                if text:
                    connection.putheader(name, text)
            connection.endheaders()
            answer = connection.getresponse()
            found = {name.lower(): text for name, text in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()


@contextmanager
def running(*arguments: Path, assets: dict[str, Asset] | None = None) -> Iterator[Running]:
    """Show what the arguments name, until the block ends."""
    entries, failures = find_entries([str(argument) for argument in arguments])
    gallery = Gallery(DEFAULT)
    shown = Shown(by_id(entries), len(failures), gallery, assets or {})
    with listening(None) as door:
        port = door.getsockname()[1]
        server = server_of(application(shown, TOKEN, port))
        thread = Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield Running(port, entries)
        finally:
            server.should_exit = True
            thread.join()
            gallery.close()
