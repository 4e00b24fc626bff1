"""PNG, JPEG, WebP and BMP: decoded whole, at the first read.

Pillow decodes all but PNGs of several 16-bit bands, which it would cut down to 8 bits.
"""

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.array import TURNS, default_background
from tnet.adapters.limits import DEFAULT, Limits
from tnet.errors import DataError, UnsupportedImage, one_line
from tnet.pyramid import Facts, Level, LevelPyramid

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")

_ORIENTATION = 0x0112
_STRIP = 2**20  # pixels converted at a time
_PNG_GREY_ALPHA = 4  # the kinds of colour in a PNG's header that have several bands
_PNG_COLOURS = (2, 6, _PNG_GREY_ALPHA)
_open_lock = threading.Lock()


class PillowPyramid(LevelPyramid):
    """A picture that has to be decoded whole; the pixels stay in memory until it is closed."""

    def __init__(self, path: Path, facts: Facts, orientation: int, deep: bool) -> None:
        super().__init__(facts)
        self._path = path
        self._orientation = orientation
        self._deep = deep
        self._pixels: NDArray[Any] | None = None
        self._decoding = threading.Lock()

    def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        with self._decoding:
            pixels = self._pixels = self._decode() if self._pixels is None else self._pixels
        return pixels[y : y + height, x : x + width]

    def _decode(self) -> NDArray[Any]:
        try:
            if self._deep:
                pixels = _decoded_deep(self._path)
            else:
                pixels = _decoded(self._path, self.bands, self.dtype)
        except Exception as error:  # decoders of foreign data fail in many ways
            raise _damaged(self._path, error) from error
        if self._orientation in TURNS:
            pixels = TURNS[self._orientation](pixels)
        if pixels.shape != (self.height, self.width, self.bands):
            raise DataError(f"{self._path} changed while it was open; open it again")
        return pixels

    def close(self) -> None:
        """Forget the decoded pixels; a later read decodes them again."""
        with self._decoding:
            self._pixels = None


def open_image(path: Path, limits: Limits = DEFAULT) -> PillowPyramid:
    """Open a PNG, JPEG, WebP or BMP; EXIF orientation is applied.

    Transparency is laid on white, palettes become RGB, CMYK becomes RGB, 1-bit becomes 8-bit.

    Raises:
        UnsupportedImage: if Pillow does not know the file, or it is larger than the limits allow.
        DataError: if it is damaged.
    """
    from PIL import UnidentifiedImageError

    try:
        _check_length(path, limits)
        with _open(path) as image:
            mode, (width, height), kind = image.mode, image.size, image.format or "image"
            clear = mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            deep = _deep_colour(path) if kind == "PNG" else None
            bands, dtype = _values(mode, clear, deep)
            # Before asking for the orientation, for which Pillow decodes a PNG.
            limits.check_image(str(path), width, height)
            pixel = 2 * bands * dtype.itemsize + 2  # as decoded, and as shown
            if "progressive" in image.info:
                pixel += 2 * bands
            limits.check_whole(str(path), f"a {kind} is decoded whole", width * height * pixel)
            orientation = image.getexif().get(_ORIENTATION, 1)
    except UnidentifiedImageError as error:
        raise UnsupportedImage(f"Pillow cannot read {path} ({one_line(error)})") from error
    except DataError:
        raise
    except Exception as error:  # foreign metadata can break a parser in any way
        raise _damaged(path, error) from error
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return PillowPyramid(
        path,
        Facts(
            name=str(path),
            format={"MPO": "JPEG"}.get(kind, kind),
            levels=(Level(width, height, 1.0, 1.0, (width, height)),),
            bands=bands,
            dtype=dtype,
            background=default_background(bands, dtype, None),
            notes=("transparent parts are shown on white",) if clear else (),
        ),
        orientation,
        deep is not None,
    )


def _check_length(path: Path, limits: Limits) -> None:
    """Refuse files that are too long for the decoders that begin by reading the file whole."""
    with path.open("rb") as file:
        start = file.read(4)
    if start in (b"RIFF", b"\x89PNG"):
        limits.check_whole(str(path), "it is read whole", path.stat().st_size)


def _deep_colour(path: Path) -> int | None:
    """Return the kind of colour of a PNG that has several bands of 16 bits, None of others."""
    with path.open("rb") as file:
        header = file.read(26)
    depth, colour = header[24], header[25]
    return colour if depth == 16 and colour in _PNG_COLOURS else None


def _values(mode: str, clear: bool, deep: int | None) -> tuple[int, np.dtype[Any]]:
    """Return bands and dtype of what is shown for a mode of Pillow's."""
    if deep is not None:
        return 1 if deep == _PNG_GREY_ALPHA else 3, np.dtype(np.uint16)
    if mode in ("I", "I;16", "I;16B", "I;16L"):
        return 1, np.dtype(np.uint16)
    grey = mode == "LA" or (mode in ("1", "L") and not clear)
    return 1 if grey else 3, np.dtype(np.uint8)


def _decoded(path: Path, bands: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Decode with Pillow: (height, width, bands), as stored."""
    with _open(path) as image:
        width, height = image.size
        pixels = np.empty((height, width, bands), dtype)
        rows = max(1, _STRIP // width)
        for top in range(0, height, rows):  # in strips: no second copy of the picture is made
            bottom = min(top + rows, height)
            strip = np.asarray(_plain(image.crop((0, top, width, bottom))))
            pixels[top:bottom] = strip.reshape(bottom - top, width, bands)
    return pixels


def _decoded_deep(path: Path) -> NDArray[Any]:
    """Decode a PNG of several 16-bit bands: (height, width, bands), as stored."""
    import imagecodecs

    pixels = imagecodecs.png_decode(path.read_bytes())
    if pixels.shape[2] % 2:
        return pixels
    shown = np.empty((*pixels.shape[:2], pixels.shape[2] - 1), pixels.dtype)
    rows = max(1, _STRIP // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        strip = pixels[top : top + rows]
        share = strip[..., -1:] / np.float32(65535)
        shown[top : top + rows] = np.rint(65535 - (65535 - strip[..., :-1]) * share)
    return shown


def _damaged(path: Path, error: Exception) -> DataError:
    if isinstance(error, OSError) and error.strerror:  # of the system, not of a decoder
        return DataError(f"{path} cannot be read ({error.strerror})")
    return DataError(f"{path} is damaged ({one_line(error)}); make or download it again")


def _open(path: Path) -> Any:
    """Open with Pillow; the guard against huge pictures is ours here, not its own."""
    from PIL import Image

    with _open_lock:
        guard, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = guard


def _plain(image: Any) -> Any:
    """Return a picture in mode L, RGB or 16-bit grey."""
    from PIL import Image

    if image.mode.startswith("I"):
        return image
    if image.mode == "LA":
        canvas = Image.new("LA", image.size, (255, 255))
        return Image.alpha_composite(canvas.convert("RGBA"), image.convert("RGBA")).convert("L")
    if image.mode in ("RGBA", "PA") or "transparency" in image.info:
        canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")
