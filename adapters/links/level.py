"""The chunks of one level of an image in a file: how each is decoded, and where it lies.

Codecs are those of numcodecs and imagecodecs, by their configurations. Only the ones below are
ever called: numcodecs knows some that run code.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.headers import declared_size
from tnet.adapters.segments import Page
from tnet.adapters.storage.layout import fill_value

Pixels = NDArray[Any]

# Codecs of bytes, which leave the order of a number's bytes alone, and codecs of pictures.
BYTE_CODECS = frozenset(
    {"zlib", "imagecodecs_lzw", "imagecodecs_zstd", "imagecodecs_packbits", "imagecodecs_lzma"}
)
PICTURE_CODECS = frozenset(
    f"imagecodecs_{name}" for name in ("bmp", "jpeg", "jpeg2k", "jpegxl", "lerc", "png", "webp")
)
FILTERS = frozenset({"imagecodecs_delta", "imagecodecs_floatpred"})

_FASTER = {"zlib": "imagecodecs_deflate"}  # another decoder of the same format


@dataclass(frozen=True)
class Chunks:
    """One level: how its chunks are decoded, and where in the file each lies.

    The array is (y, x); (y, x, c) where a chunk holds all bands; (c, y, x) where each holds one.

    Attributes:
        width: pixels across.
        height: pixels down.
        tile: width and height of a chunk.
        samples: values per pixel in a chunk.
        planes: how many times the level is cut into chunks: once, or once a band.
        dtype: of the decoded values, in the byte order that the codec leaves them in.
        compressor: configuration of the codec, None where there is none.
        filters: configurations of what undoes a prediction.
        empty: the value of chunks that were left out.
        offsets: byte where each chunk begins, row by row, plane after plane.
        counts: bytes of each chunk; 0 was left out.
    """

    width: int
    height: int
    tile: tuple[int, int]
    samples: int
    planes: int
    dtype: np.dtype[Any]
    compressor: dict[str, Any] | None
    filters: tuple[dict[str, Any], ...]
    empty: float
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """The array's axes."""
        if self.planes > 1:
            return ("c", "y", "x")
        return ("y", "x", "c") if self.samples > 1 else ("y", "x")

    @property
    def grid(self) -> tuple[int, int]:
        """How many chunks there are across and down."""
        return -(-self.width // self.tile[0]), -(-self.height // self.tile[1])

    def along(self, across: int, down: int, bands: int) -> list[int]:
        """Return three numbers in the order of the array's axes."""
        values = {"x": across, "y": down, "c": bands}
        return [values[axis] for axis in self.axes]

    def keys(self) -> Iterator[str]:
        """Give the zarr key of each chunk, in the order of ``offsets``."""
        across, down = self.grid
        for plane in range(self.planes):
            start = f"{plane}." if self.planes > 1 else ""
            end = ".0" if self.planes == 1 and self.samples > 1 else ""
            for row in range(down):
                yield from [f"{start}{row}.{column}{end}" for column in range(across)]

    def metadata(self) -> dict[str, Any]:
        """Return the array's .zarray."""
        return {
            "zarr_format": 2,
            "shape": self.along(self.width, self.height, self.samples * self.planes),
            "chunks": self.along(*self.tile, self.samples),
            "dtype": self.dtype.str,
            "compressor": self.compressor,
            "filters": list(self.filters) or None,
            "fill_value": fill_value(self.empty, self.dtype),
            "order": "C",
            "dimension_separator": ".",
        }

    def page(self) -> Page:
        """Return what reads the level from the file."""
        return Page(
            width=self.width,
            height=self.height,
            tile=self.tile,
            samples=self.samples,
            planes=self.planes,
            dtype=self.dtype.newbyteorder("="),
            offsets=self.offsets,
            counts=self.counts,
            decode=self._decoder(),
            empty=self.empty,
        )

    def _decoder(self) -> Callable[[bytes, int], Pixels]:
        """Return what turns bytes and a chunk's index into (1, height, width, samples)."""
        codec = None if self.compressor is None else _codec(self.compressor)
        pictures = self.compressor is not None and self.compressor["id"] in PICTURE_CODECS
        filters = [_codec(configuration) for configuration in reversed(self.filters)]
        picture = (self.tile[1], self.tile[0], self.samples)
        stored = picture[:2] if self.samples == 1 else picture
        native = self.dtype.newbyteorder("=")

        def decode(data: bytes, index: int) -> Pixels:
            # Some decoders take memory for all that a picture claims before they look at ours.
            inside = declared_size(data) if pictures else None
            if inside is not None and inside != self.tile:
                raise ValueError(f"it says that it holds {inside[0]} x {inside[1]} pixels")
            plain: Any = data
            if codec is not None:
                # Into memory of the right size: whatever the chunk says, it gets no more.
                plain = codec.decode(data, out=np.empty(stored, self.dtype))
            for step in filters:
                plain = step.decode(plain)
            values = plain if isinstance(plain, np.ndarray) else np.frombuffer(plain, np.uint8)
            if values.dtype != self.dtype:
                values = values.reshape(-1).view(np.uint8).view(self.dtype)
            return values.reshape(1, *picture).astype(native, copy=False)

        return decode


def _codec(configuration: Mapping[str, Any]) -> Any:
    """Return the codec of a configuration.

    Raises:
        ValueError: if it is none of those that are known to be harmless.
    """
    import imagecodecs.numcodecs
    from numcodecs import get_codec  # type: ignore[import-untyped]

    name = configuration["id"]
    if name not in BYTE_CODECS | PICTURE_CODECS | FILTERS:
        raise ValueError(f"it names the codec {name!r}")
    faster = _FASTER.get(name)
    wanted = {"id": faster} if faster else dict(configuration)
    imagecodecs.numcodecs.register_codecs([wanted["id"]], verbose=False)
    return get_codec(wanted)
