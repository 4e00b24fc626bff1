"""How many pixels a compressed picture says it holds, from its first bytes: nothing is decoded."""

import struct
from collections.abc import Callable

_JPEG, _PNG, _JPEG_2000 = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"\xff\x4f\xff\x51"
_JPEG_2000_FILE = b"\0\0\0\x0cjP  "
_JPEG_XL, _JPEG_XL_FILE = b"\xff\x0a", b"\0\0\0\x0cJXL "
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers that state the size
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # JPEG markers without a length
_LOOK = 2**16  # bytes into a JPEG 2000 or JPEG XL file in which its picture has to begin

Size = tuple[int, int]

# Of JPEG XL: bits of a side, by a selector of two bits; and width to height, by one of three.
_XL_BITS = (9, 13, 18, 30)
_XL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def declared_size(data: bytes) -> Size | None:
    """Return width and height of a JPEG, JPEG 2000, JPEG XL or PNG; None of anything else.

    Also where the header is damaged or elsewhere, as that of a JPEG of which only a part is here.
    """
    try:
        return next((size(data) for start, size in _SIZES.items() if data.startswith(start)), None)
    except (struct.error, ValueError):
        return None


def _of_jpeg(data: bytes) -> Size:
    """Walk the segments of a JPEG up to the one that states its size."""
    place = 2
    while True:
        place = data.index(0xFF, place)  # decoders skip what lies before
        marker = data[place + 1] if place + 1 < len(data) else 0xFF
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        if marker in (0x00, 0xFF):  # filling
            place += 1
        elif marker in _ALONE:
            place += 2
        else:
            (length,) = struct.unpack_from(">H", data, place + 2)
            place += 2 + length


def _of_png(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _of_jpeg_2000(data: bytes) -> Size:
    start = data.index(_JPEG_2000, 0, _LOOK)
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    return right - left, bottom - top


def _of_jpeg_xl_file(data: bytes) -> Size:
    return _of_jpeg_xl(data, data.index(_JPEG_XL, len(_JPEG_XL_FILE), _LOOK))


def _of_jpeg_xl(data: bytes, place: int = 0) -> Size:
    """Read the size header, a stream of bits from the lowest on."""
    bits = int.from_bytes(data[place + 2 : place + 18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take(_XL_BITS[take(2)]) + 1

    height = side()
    ratio = take(3)
    if ratio == 0:
        return side(), height
    across, down = _XL_RATIOS[ratio - 1]
    return height * across // down, height


_SIZES: dict[bytes, Callable[[bytes], Size]] = {
    _JPEG: _of_jpeg,
    _PNG: _of_png,
    _JPEG_2000: _of_jpeg_2000,
    _JPEG_2000_FILE: _of_jpeg_2000,
    _JPEG_XL: _of_jpeg_xl,
    _JPEG_XL_FILE: _of_jpeg_xl_file,
}
