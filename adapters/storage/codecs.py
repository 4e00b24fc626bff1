"""How the pixels of a chunk become bytes, and back: one codec an array.

Every chain ends in a CRC-32C over all of the compressed bytes, so that no flipped bit goes unseen,
whichever library reads.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import crc32c
import numpy as np
from numpy.typing import NDArray

from tnet.adapters.interleaving import interleaved
from tnet.errors import DataError, UsageError, counted

Pixels = NDArray[Any]

LOSSLESS = "lossless"
SOURCE = "source"

_CRC = {"name": "crc32c"}
CHECKSUM_BYTES = 4
_JPEG = "imagecodecs_jpeg"
_JPEG_BANDS = (1, 3)


class Codec(Protocol):
    """Turns chunks (bands, height, width) into bytes without loss, or with some."""

    @property
    def lossless(self) -> bool:
        """Whether decoding gives back every value."""

    def encode(self, chunk: Pixels) -> bytes:
        """Return the bytes of a chunk, its checksum included."""

    def decode(self, content: bytes, shape: tuple[int, int, int]) -> Pixels:
        """Return a chunk (bands, height, width) from its bytes.

        Raises:
            DataError: if they are damaged.
        """

    def metadata(self) -> list[dict[str, Any]]:
        """Return the chain as zarr v3 names it."""


@dataclass(frozen=True)
class Zstd:
    """Bytes as they are, through Zstandard: for 8-bit values."""

    dtype: np.dtype[Any]
    level: int = 1
    lossless: bool = True

    def encode(self, chunk: Pixels) -> bytes:
        """Return the bytes of a chunk, its checksum included."""
        import imagecodecs

        return with_checksum(bytes(imagecodecs.zstd_encode(chunk.tobytes(), self.level)))

    def decode(self, content: bytes, shape: tuple[int, int, int]) -> Pixels:
        """Return a chunk from its bytes."""
        import imagecodecs

        size = int(np.prod(shape)) * self.dtype.itemsize
        plain = imagecodecs.zstd_decode(without_checksum(content), out=size)
        return np.frombuffer(plain, self.dtype.newbyteorder("<")).reshape(shape)

    def metadata(self) -> list[dict[str, Any]]:
        """Return the chain as zarr v3 names it."""
        return [
            {"name": "bytes"},
            {"name": "zstd", "configuration": {"level": self.level, "checksum": False}},
            _CRC,
        ]


@dataclass(frozen=True)
class Blosc:
    """Bits of the same weight side by side, then Zstandard: for wider values."""

    dtype: np.dtype[Any]
    level: int = 3
    lossless: bool = True

    def encode(self, chunk: Pixels) -> bytes:
        """Return the bytes of a chunk, its checksum included."""
        import imagecodecs

        content = imagecodecs.blosc_encode(
            chunk.astype(self.dtype.newbyteorder("<"), copy=False).tobytes(),
            self.level,
            compressor="zstd",
            shuffle="bitshuffle",
            typesize=self.dtype.itemsize,
            numthreads=1,
        )
        return with_checksum(bytes(content))

    def decode(self, content: bytes, shape: tuple[int, int, int]) -> Pixels:
        """Return a chunk from its bytes."""
        import imagecodecs

        plain = imagecodecs.blosc_decode(without_checksum(content), numthreads=1)
        little = np.frombuffer(plain, self.dtype.newbyteorder("<")).reshape(shape)
        return little.astype(self.dtype, copy=False)

    def metadata(self) -> list[dict[str, Any]]:
        """Return the chain as zarr v3 names it."""
        configuration = {
            "cname": "zstd",
            "clevel": self.level,
            "shuffle": "bitshuffle",
            "typesize": self.dtype.itemsize,
            "blocksize": 0,
        }
        return [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "blosc", "configuration": configuration},
            _CRC,
        ]


@dataclass(frozen=True)
class Jpeg:
    """JPEG of 8-bit grey or RGB, as imagecodecs' own zarr codec has it.

    Attributes:
        bands: 1 or 3.
        quality: of what is encoded here; None where tiles come from a file as they are.
        tables: the tables that a TIFF keeps apart from its tiles.
        stored: the colours inside the JPEG, "YCBCR" or "RGB", where it does not say so itself.
    """

    bands: int
    quality: int | None = None
    tables: bytes | None = None
    stored: str | None = None
    lossless: bool = False

    def encode(self, chunk: Pixels) -> bytes:
        """Return the bytes of a chunk, its checksum included."""
        import imagecodecs

        picture = interleaved(chunk) if self.bands > 1 else np.ascontiguousarray(chunk[0])
        return with_checksum(bytes(imagecodecs.jpeg8_encode(picture, self.quality)))

    def decode(self, content: bytes, shape: tuple[int, int, int]) -> Pixels:
        """Return a chunk from its bytes."""
        picture = decode_jpeg(without_checksum(content), self.configuration())
        bands, height, width = shape
        return picture.reshape(height, width, bands).transpose(2, 0, 1)

    def configuration(self) -> dict[str, Any]:
        """Return what a reader has to know to decode a tile."""
        known: dict[str, Any] = {}
        if self.quality is not None:
            known["level"] = self.quality
        if self.stored is not None:
            known |= {"colorspace_jpeg": self.stored, "colorspace_data": "RGB"}
        if self.tables is not None:
            known["tables"] = base64.b64encode(self.tables).decode()
        return known

    def metadata(self) -> list[dict[str, Any]]:
        """Return the chain as zarr v3 names it."""
        turned = {"name": "transpose", "configuration": {"order": [1, 2, 0]}}
        return [turned, {"name": _JPEG, "configuration": self.configuration()}, _CRC]


def codec_for(name: str, bands: int, dtype: np.dtype[Any]) -> Codec:
    """Return the codec that a name of the command line means for an image.

    Args:
        name: "lossless", or "jpeg:QUALITY".
        bands: values per pixel.
        dtype: of the values.

    Raises:
        UsageError: if there is no such codec.
        DataError: if the image cannot be stored in it.
    """
    if name == LOSSLESS:
        return Zstd(dtype) if dtype.itemsize == 1 else Blosc(dtype)
    quality = jpeg_quality(name)
    if dtype != np.uint8 or bands not in _JPEG_BANDS:
        raise DataError(
            f"JPEG takes 8-bit grey or RGB and this image has {counted(bands, 'band')} of "
            f"{dtype}; leave --codec out, which stores it without loss"
        )
    return Jpeg(bands, quality)


def check_name(name: str) -> None:
    """Make sure that there is a codec of that name.

    Raises:
        UsageError: if there is none.
    """
    if name not in (LOSSLESS, SOURCE):
        jpeg_quality(name)


def jpeg_quality(name: str) -> int:
    """Return the quality that "jpeg:QUALITY" names.

    Raises:
        UsageError: if it names none.
    """
    kind, _, number = name.partition(":")
    if kind == "jpeg" and number.isdecimal() and 1 <= int(number) <= 100:
        return int(number)
    raise UsageError(
        f"there is no codec {name!r}; say lossless, jpeg:QUALITY with a quality from 1 to 100, or "
        "source for the JPEG tiles of the file as they are"
    )


def decode_jpeg(content: bytes, configuration: Mapping[str, Any]) -> Pixels:
    """Return the picture (height, width[, bands]) of a JPEG tile.

    Args:
        content: the tile.
        configuration: of the codec ``imagecodecs_jpeg``.
    """
    import imagecodecs

    tables = configuration.get("tables")
    return imagecodecs.jpeg8_decode(
        content,
        tables=None if tables is None else base64.b64decode(tables),
        colorspace=configuration.get("colorspace_jpeg"),
        outcolorspace=configuration.get("colorspace_data"),
    )


def checksum(content: bytes | memoryview) -> bytes:
    """Return the CRC-32C of bytes, as zarr's codec of that name stores it."""
    return crc32c.crc32c(content).to_bytes(CHECKSUM_BYTES, "little")


def checksums(contents: Sequence[memoryview]) -> NDArray[np.uint8]:
    """Return ``checksum`` of each of several contents, (n, 4)."""
    numbers = np.fromiter(map(crc32c.crc32c, contents), "<u4", len(contents))
    return numbers.view(np.uint8).reshape(-1, CHECKSUM_BYTES)


def with_checksum(content: bytes) -> bytes:
    """Return bytes with their CRC-32C behind them, as zarr's codec of that name has it."""
    return content + checksum(content)


def without_checksum(content: bytes) -> bytes:
    """Return bytes without the CRC-32C behind them.

    Raises:
        DataError: if it is another one.
    """
    body = content[:-CHECKSUM_BYTES]
    if content[-CHECKSUM_BYTES:] != checksum(body):
        raise DataError("its checksum is wrong")
    return body
