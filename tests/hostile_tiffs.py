"""TIFFs that lie: directories written byte by byte, as no library would write them."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Values = Sequence[int] | bytes

_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 9: "i", 16: "Q"}


@dataclass(frozen=True)
class Tag:
    """A value of a certain type; ``count`` and ``place`` lie where they are given."""

    kind: int
    values: Values
    count: int | None = None
    place: int | None = None


Page = Mapping[int, Tag]


def number(*values: int) -> Tag:
    """Return whole numbers of 32 bits."""
    return Tag(4, values)


def text(content: bytes) -> Tag:
    """Return a text, ended as TIFF wants it."""
    return Tag(2, content + b"\0")


def tiled(size: tuple[int, int] = (64, 64), tile: tuple[int, int] = (64, 64), **more: Tag) -> Page:
    """Return a page of 8-bit RGB in one uncompressed tile; ``more`` are tags as ``t277=...``."""
    page = {
        256: number(size[0]),
        257: number(size[1]),
        258: Tag(3, (8, 8, 8)),
        259: Tag(3, (1,)),
        262: Tag(3, (2,)),
        277: Tag(3, (3,)),
        284: Tag(3, (1,)),
        322: number(tile[0]),
        323: number(tile[1]),
        324: number(16),
        325: number(64 * 64 * 3),
    }
    return page | {int(name[1:]): tag for name, tag in more.items()}


def striped(size: tuple[int, int] = (64, 64), rows: int = 64, **more: Tag) -> Page:
    """Return a page of 8-bit RGB in one uncompressed strip, if nothing else is said."""
    page = {tag: value for tag, value in tiled(size).items() if tag < 322}
    strips = {278: number(rows), 273: number(16), 279: number(64 * 64 * 3)}
    return page | strips | {int(name[1:]): tag for name, tag in more.items()}


def tiff(
    *pages: Page, pixels: bytes = bytes(64 * 64 * 3), big: bool = False, last: int = 0
) -> bytes:
    """Return a file whose pixels begin at byte 16; ``last`` is where the list of pages goes on."""
    wide, number_of, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    room = entry - 4 - struct.calcsize("<" + wide)
    body = bytearray(16) + pixels
    previous = 8 if big else 4
    body[:8] = struct.pack("<2sHHH", b"II", 43, 8, 0) if big else struct.pack("<2sHI", b"II", 42, 0)
    for page in pages:
        entries = b""
        for tag, value in sorted(page.items()):
            data = _packed(value)
            entries += struct.pack("<HH" + wide, tag, value.kind, _count(value))
            if len(data) > room:
                body += bytes(-len(body) % 8)
                place = len(body) if value.place is None else value.place
                body += data
                data = struct.pack("<" + wide, place)
            elif value.place is not None:
                data = struct.pack("<" + wide, value.place)
            entries += data.ljust(room, b"\0")
        body += bytes(-len(body) % 8)
        struct.pack_into("<" + wide, body, previous, len(body))
        body += struct.pack("<" + number_of, len(page)) + entries
        previous = len(body)
        body += struct.pack("<" + wide, last)
    return bytes(body)


def _count(tag: Tag) -> int:
    return len(tag.values) if tag.count is None else tag.count


def _packed(tag: Tag) -> bytes:
    if isinstance(tag.values, bytes):
        return tag.values
    return struct.pack(f"<{len(tag.values)}{_CODES[tag.kind]}", *tag.values)
