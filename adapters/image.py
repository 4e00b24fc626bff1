"""PNG, JPEG, WebP and BMP through Pillow: decoded whole, at the first read."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.array import default_background
from tnet.errors import DataError, UnsupportedImage
from tnet.pyramid import Facts, Level, LevelPyramid

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
PIXEL_LIMIT = 2**30

_ORIENTATION = 0x0112
_open_lock = threading.Lock()


class PillowPyramid(LevelPyramid):
    """A picture that has to be decoded whole; the pixels stay in memory until it is closed."""

    def __init__(self, path: Path, facts: Facts) -> None:
        super().__init__(facts)
        self._path = path
        self._pixels: NDArray[Any] | None = None
        self._decoding = threading.Lock()

    def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        with self._decoding:
            if self._pixels is None:
                self._pixels = self._decode()
        return self._pixels[y : y + height, x : x + width]

    def _decode(self) -> NDArray[Any]:
        from PIL import ImageOps

        try:
            with _open(self._path) as image:
                upright = ImageOps.exif_transpose(image)
                pixels = np.asarray(_plain(upright))
        except (OSError, ValueError, SyntaxError) as error:
            raise _damaged(self._path, error) from error
        if pixels.shape[:2] != (self.height, self.width):
            raise DataError(f"{self._path} changed while it was open; open it again")
        return pixels.reshape(self.height, self.width, self.bands).astype(self.dtype, copy=False)

    def close(self) -> None:
        """Forget the decoded pixels; a later read decodes them again."""
        with self._decoding:
            self._pixels = None


def open_image(path: Path) -> PillowPyramid:
    """Open a PNG, JPEG, WebP or BMP; EXIF orientation is applied.

    Transparency is laid on white, palettes become RGB, CMYK becomes RGB, 1-bit becomes 8-bit.

    Raises:
        UnsupportedImage: if Pillow does not know the file, or it is too large to decode whole.
        DataError: if it is damaged.
    """
    from PIL import UnidentifiedImageError

    try:
        with _open(path) as image:
            mode, (width, height), kind = image.mode, image.size, image.format or "image"
            if image.getexif().get(_ORIENTATION) in (5, 6, 7, 8):
                width, height = height, width
            clear = mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    except UnidentifiedImageError as error:
        raise UnsupportedImage(f"Pillow cannot read {path} ({error})") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise _damaged(path, error) from error
    if width * height > PIXEL_LIMIT:
        raise UnsupportedImage(
            f"{path} has {width} x {height} pixels, more than the 2^30 that are decoded at once; "
            "convert it to a tiled TIFF or zarr pyramid"
        )
    grey, wide = mode in ("1", "L", "LA"), mode in ("I", "I;16", "I;16B", "I;16L")
    dtype = np.dtype(np.uint16 if wide else np.uint8)
    bands = 1 if (grey or wide) and not (mode in ("1", "L") and clear) else 3
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
    )


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged ({error}); make or download it again")


def _open(path: Path) -> Any:
    """Open with Pillow; its guard against huge pictures is ours here (``PIXEL_LIMIT``)."""
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
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
