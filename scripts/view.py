"""Show images and walks in the browser: ``tnet view result`` or ``tnet view slide.svs``."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tnet.errors import DataError, UsageError
from tnet.scripts.options import MaxMemory, MaxPixels

if TYPE_CHECKING:
    from socket import socket

    from starlette.types import ASGIApp
    from uvicorn import Server

_HOST = "127.0.0.1"
_USUAL_PORT = 8799
_MOST_CONNECTIONS = 64
_CACHE_BYTES = 2**22  # of decoded pixels; the browser keeps what it was given


def view(
    shown: Annotated[
        list[str],
        typer.Argument(
            metavar="WALKS|IMAGE",
            help="A folder that `tnet classify --out` wrote, walks (.json), or images.",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the walks' images are now, if they were moved."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help=f"{_USUAL_PORT}, or another one if that is taken."),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the link in the browser.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the link as one line of JSON.")
    ] = False,
    max_pixels: MaxPixels = None,
    max_memory: MaxMemory = None,
) -> None:
    """Show images in the browser, and where the model looked: boxes, crops, numbers, heat map.

    The first line on stdout is the link. It works on this machine only; Ctrl-C ends the viewer.
    Exits with 3 if nothing can be read.
    """
    from tnet.adapters.limits import limits_of
    from tnet.adapters.segments import CACHE
    from tnet.scripts.output import say
    from tnet.scripts.viewer.assets import load_assets
    from tnet.scripts.viewer.cohort import find_entries
    from tnet.scripts.viewer.gallery import Gallery
    from tnet.scripts.viewer.server import Shown, application, by_id

    limits = limits_of(max_pixels, max_memory)
    assets = load_assets()
    entries, failures = find_entries(shown, images)
    problems = [entry.problem for entry in entries if entry.problem is not None]
    for sentence in [*failures, *problems]:
        say(sentence)
    if not entries:
        raise DataError("none of the walks can be read; make them again with `tnet classify --out`")
    CACHE.limit = _CACHE_BYTES
    gallery = Gallery(limits)
    with listening(port) as door:
        number = door.getsockname()[1]
        token = new_token()
        app = application(Shown(by_id(entries), len(failures), gallery, assets), token, number)
        page = f"view/{entries[0].id}" if len(entries) == 1 else ""
        url = f"http://{_HOST}:{number}/{page}?token={token}"
        facts = {"url": url, "port": number, "images": len(entries), "failed": len(failures)}
        print(json.dumps(facts) if as_json else url, flush=True)
        say("open the link above in a browser on this machine; Ctrl-C ends the viewer")
        if browser and not as_json:
            open_browser(url)
        try:
            server_of(app).run(sockets=[door])
        except KeyboardInterrupt:
            say("the viewer has ended")
        finally:
            gallery.close()


def new_token() -> str:
    """Return a secret that nobody guesses."""
    import secrets

    return secrets.token_urlsafe(24)


def listening(port: int | None) -> "socket":
    """Return a socket that listens on this machine's loopback interface.

    Args:
        port: None takes the usual one, or any that is free.

    Raises:
        UsageError: if another program has the port.
    """
    from socket import create_server

    refused = OSError("no port is free")
    for wanted in (_USUAL_PORT, 0) if port is None else (port,):
        try:
            return create_server((_HOST, wanted))
        except OSError as error:
            refused = error
    raise UsageError(
        f"port {port} cannot be used ({refused.strerror or refused}); name another with --port"
    )


def open_browser(url: str) -> None:
    """Open a link, if there is a screen to show it on; a browser in the terminal is none."""
    import webbrowser

    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in screens):
        webbrowser.open(url)


def server_of(app: "ASGIApp") -> "Server":
    """Return what answers with an application, until the process is interrupted."""
    import uvicorn

    config = uvicorn.Config(
        app,
        access_log=False,
        limit_concurrency=_MOST_CONNECTIONS,
        lifespan="off",
        log_level="error",
        server_header=False,
        timeout_graceful_shutdown=1,
        ws="none",
    )
    return uvicorn.Server(config)
