"""Answers to what the browser asks: pages, numbers, tiles and crops, by an entry's id only."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, get_args

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tnet.adapters.drawing import fitted
from tnet.adapters.exports.heat import Heat
from tnet.errors import TNetError, counted
from tnet.maps import KINDS
from tnet.record import Walk
from tnet.scripts.viewer.assets import Asset
from tnet.scripts.viewer.cohort import Entry
from tnet.scripts.viewer.data import told
from tnet.scripts.viewer.gallery import Gallery, Suffix, encoded, thumbnail
from tnet.scripts.viewer.guard import Guard
from tnet.scripts.viewer.heat import heat_legend, heat_of, heat_png
from tnet.scripts.viewer.pages import SORTS, list_page, message_page
from tnet.scripts.viewer.tiling import Tiling

Answer = TypeVar("Answer")

MOST_CROP = 1024  # pixels of a crop's longer side
THUMBNAIL = 480
AT_ONCE = 2  # threads that read pixels
WAITING = 200  # requests for pixels that may wait for them
_KEPT = {"cache-control": "private, max-age=600"}
_BLANK = (236, 238, 240)  # what an image that was not found is shown as


@dataclass(frozen=True)
class Shown:
    """What a server shows.

    Attributes:
        entries: by their ids.
        missing: how many walks could not be read.
        gallery: opens the images.
        assets: the files that the pages are made of, by their names.
    """

    entries: Mapping[str, Entry]
    missing: int
    gallery: Gallery
    assets: Mapping[str, Asset]


def application(shown: Shown, token: str, port: int) -> ASGIApp:
    """Return the guarded application.

    Args:
        shown: what it shows.
        token: the secret that the link holds.
        port: where it is served.
    """
    server = _Server(shown)
    app = Starlette(
        routes=[
            Route("/", server.list),
            Route("/view/{id}", server.view),
            Route("/static/{name}", server.asset),
            Route("/data/{id}.json", server.data),
            Route("/tile/{id}/{level:int}/{column:int}_{row:int}.{suffix}", server.tile),
            Route("/thumb/{id}.jpg", server.thumb),
            Route("/crop/{id}/{glimpse:int}.png", server.crop),
            Route("/inset/{id}/{glimpse:int}.png", server.inset),
            Route("/heat/{id}.png", server.heat),
            Route("/heat/{id}.json", server.legend),
        ],
        exception_handlers={HTTPException: _said},
    )
    app.router.redirect_slashes = False
    return Guard(app, token, port)


async def _said(request: Request, error: Exception) -> Response:
    """Answer with the sentence of what went wrong."""
    assert isinstance(error, HTTPException)
    return HTMLResponse(message_page(error.detail), error.status_code, error.headers)


class _Server:
    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._limiter = CapacityLimiter(AT_ONCE)
        self._waiting = 0

    async def list(self, request: Request) -> Response:
        sort = request.query_params.get("sort", "uncertain")
        page = request.query_params.get("page", "1")
        if sort not in SORTS or not re.fullmatch("[1-9][0-9]{0,5}", page):
            raise HTTPException(400, "the list has no such order or page")
        entries = list(self._shown.entries.values())
        return HTMLResponse(list_page(entries, sort, int(page), self._shown.missing))

    async def view(self, request: Request) -> Response:
        self._entry(request)
        return self._file("viewer.html")

    async def asset(self, request: Request) -> Response:
        return self._file(request.path_params["name"])

    async def data(self, request: Request) -> Response:
        entry = self._entry(request)
        return JSONResponse(await self._worked(partial(self._told, entry)))

    async def tile(self, request: Request) -> Response:
        entry, asked = self._entry(request), request.path_params
        if asked["suffix"] not in get_args(Suffix):
            raise HTTPException(404, "tiles are jpg or png")
        place = asked["level"], asked["column"], asked["row"]
        content = await self._worked(partial(self._tile, entry, place, asked["suffix"]))
        return _image(content, asked["suffix"])

    async def thumb(self, request: Request) -> Response:
        entry = self._entry(request)
        return _image(await self._worked(partial(self._thumb, entry)), "jpg")

    async def crop(self, request: Request) -> Response:
        """Answer with a glimpse; ``?side=`` is its longer side in pixels."""
        entry, index = self._entry(request), request.path_params["glimpse"]
        side = request.query_params.get("side")
        if side is not None and not re.fullmatch("[1-9][0-9]{0,3}", side):
            raise HTTPException(400, f"a crop has 1 to {MOST_CROP} pixels a side")
        if side is not None and int(side) > MOST_CROP:
            raise HTTPException(400, f"a crop has at most {MOST_CROP} pixels a side")
        wanted = None if side is None else int(side)
        return _image(await self._worked(partial(self._crop, entry, index, wanted)), "png")

    async def inset(self, request: Request) -> Response:
        """Answer with what lies inside a glimpse, if it was drawn beside the walk."""
        entry, index = self._entry(request), request.path_params["glimpse"]
        return _image(await self._worked(partial(self._inset, entry, index)), "png")

    async def heat(self, request: Request) -> Response:
        shown = partial(heat_png, heat=_heat(request))
        return _image(await self._worked(partial(self._walked, self._entry(request), shown)), "png")

    async def legend(self, request: Request) -> Response:
        """Answer with what the colours of a heat map mean."""
        shown = partial(heat_legend, heat=_heat(request))
        said = await self._worked(partial(self._walked, self._entry(request), shown))
        return JSONResponse(said, headers=_KEPT)

    def _entry(self, request: Request) -> Entry:
        try:
            return self._shown.entries[request.path_params["id"]]
        except KeyError:
            raise HTTPException(404, "there is no such image here") from None

    def _file(self, name: str) -> Response:
        asset = self._shown.assets.get(name)
        if asset is None:
            raise HTTPException(404, "there is no such file here")
        return Response(asset.content, media_type=asset.media_type)

    async def _worked(self, work: Callable[[], Answer]) -> Answer:
        """Do in a thread what reads files; turn away what would wait for too long."""
        if self._waiting >= WAITING:
            raise HTTPException(503, "too much was asked for at once", {"retry-after": "1"})
        self._waiting += 1
        try:
            return await to_thread.run_sync(work, limiter=self._limiter)
        except TNetError as error:
            raise HTTPException(404, str(error)) from error
        finally:
            self._waiting -= 1

    def _told(self, entry: Entry) -> Any:
        walk = entry.read()
        try:
            with self._shown.gallery.picture(entry) as picture:
                return told(entry, walk, picture.pyramid, None)
        except TNetError as error:
            if walk is None:
                raise
            return told(entry, walk, None, str(error))

    def _tile(self, entry: Entry, place: tuple[int, int, int], suffix: Suffix) -> bytes:
        with self._shown.gallery.picture(entry) as picture:
            tile = Tiling(picture.pyramid.width, picture.pyramid.height).tile(*place)
            if tile is None:
                raise HTTPException(404, "there is no such tile")
            return encoded(picture.show(*tile), suffix)

    def _thumb(self, entry: Entry) -> bytes:
        with self._shown.gallery.picture(entry) as picture:
            return encoded(thumbnail(picture, entry.read(), THUMBNAIL), "jpg")

    def _crop(self, entry: Entry, index: int, side: int | None) -> bytes:
        walk = _walk(entry)
        region = _glimpse(walk, index).region
        with self._shown.gallery.picture(entry) as picture:
            size = fitted(*walk.view, MOST_CROP)
            if side is not None:
                scale = side / max(region.width, region.height)
                size = max(1, round(region.width * scale)), max(1, round(region.height * scale))
            return encoded(picture.show(region, size), "png")

    def _inset(self, entry: Entry, index: int) -> bytes:
        _glimpse(_walk(entry), index)
        file = entry.inset(index)
        if file is None:
            raise HTTPException(404, "nothing was drawn inside this glimpse")
        return file.read_bytes()

    def _walked(self, entry: Entry, show: Callable[[Walk], Answer]) -> Answer:
        return show(_walk(entry))


def _heat(request: Request) -> Heat:
    """Return which heat map is asked for."""
    asked = request.query_params.get("kind", "weight")
    kind = next((kind for kind in KINDS if kind == asked), None)
    target = request.query_params.get("target", "0")
    if kind is None or not re.fullmatch("[0-9]{1,6}", target):
        raise HTTPException(400, "there is no such heat map")
    return heat_of(kind, int(target))


def _walk(entry: Entry) -> Walk:
    walk = entry.read()
    if walk is None:
        raise HTTPException(404, "nobody walked over this image")
    return walk


def _glimpse(walk: Walk, index: int) -> Any:
    if index >= len(walk.glimpses):
        raise HTTPException(404, f"the walk has {counted(len(walk.glimpses), 'glimpse')}")
    return walk.glimpses[index]


def _image(content: bytes, suffix: str) -> Response:
    kind = "image/jpeg" if suffix == "jpg" else "image/png"
    return Response(content, media_type=kind, headers=_KEPT)


def by_id(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Return entries by their ids."""
    return {entry.id: entry for entry in entries}
