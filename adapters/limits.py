"""How large an image, and a piece of one, may say that it is before we believe it.

A file of a few bytes can declare an image that no memory holds. What a file declares is held
against these limits before memory is taken for it; the flags raise them.
"""

import math
from dataclasses import dataclass

from tnet.errors import UnsupportedImage, UsageError

_PIECES = 4  # how many pieces of an image may be in memory at once
_UNITS = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip


class OverLimit(UnsupportedImage):
    """A file that asks for more than the limits allow; no other reader shall try it."""


@dataclass(frozen=True)
class Limits:
    """What an image may declare.

    Attributes:
        pixels: most pixels of one level (``--max-pixels``).
        memory: most bytes of decoded pixels that have to be held at once (``--max-memory``).
    """

    pixels: int = 10**12
    memory: int = 2**32

    @property
    def piece(self) -> int:
        """Most bytes of one decoded tile, strip or chunk, of which several are held at once."""
        return self.memory // _PIECES

    def check_image(self, name: str, width: int, height: int) -> None:
        """Refuse an image or a level of impossible size.

        Args:
            name: of the file.
            width: pixels across, as declared.
            height: pixels down, as declared.

        Raises:
            UnsupportedImage: if it has no pixels; an OverLimit if it has too many.
        """
        if width < 1 or height < 1:
            raise UnsupportedImage(
                f"{name} says that it has {width} x {height} pixels; it is damaged, make or "
                "download it again"
            )
        if width * height > self.pixels:
            raise OverLimit(
                f"{name} says that it has {width} x {height} pixels, more than the limit of "
                f"{self.pixels:.3g}; if that is true, raise it with --max-pixels"
            )

    def check_piece(self, name: str, what: str, nbytes: int) -> None:
        """Refuse a tile, strip or chunk that is too large to be decoded.

        Args:
            name: of the file.
            what: what the piece is, such as "tiles of 70000 x 70000 pixels".
            nbytes: bytes of one piece, decoded.

        Raises:
            OverLimit: if it is too large.
        """
        if nbytes > self.piece:
            raise OverLimit(
                f"{name} is stored in {what}, {readable(nbytes)} each and more than a quarter of "
                f"the memory limit of {readable(self.memory)}; convert it to smaller pieces, or "
                "raise the limit with --max-memory"
            )

    def check_whole(self, name: str, why: str, nbytes: int) -> None:
        """Refuse a picture that is too large to be held in memory whole, where that is needed.

        Args:
            name: of the file.
            why: what makes that necessary, such as "a PNG is decoded whole".
            nbytes: bytes of the picture, decoded.

        Raises:
            OverLimit: if it is too large.
        """
        if nbytes > self.memory:
            raise OverLimit(
                f"{name} would take {readable(nbytes)} of memory, because {why}, and the limit is "
                f"{readable(self.memory)}; convert it to a tiled TIFF or zarr pyramid, or raise "
                "the limit with --max-memory"
            )


DEFAULT = Limits()


def limits_of(max_pixels: str | None, max_memory: str | None) -> Limits:
    """Return the limits that the flags ``--max-pixels`` and ``--max-memory`` ask for.

    Raises:
        UsageError: naming the flag that makes no sense.
    """
    return Limits(
        DEFAULT.pixels if max_pixels is None else pixels_of(max_pixels),
        DEFAULT.memory if max_memory is None else bytes_of(max_memory),
    )


def pixels_of(text: str, flag: str = "--max-pixels") -> int:
    """Return a number of pixels, such as 1e12.

    Raises:
        UsageError: if it is none; it names the flag.
    """
    number = _number(text)
    if number is None:
        raise UsageError(f"{flag} takes a number of pixels above 0, such as 1e12; got {text!r}")
    return number


def bytes_of(text: str, flag: str = "--max-memory") -> int:
    """Return a size in bytes: 1e9, 500MB (powers of 1000) or 4GiB (powers of 1024).

    Raises:
        UsageError: if it is none; it names the flag.
    """
    digits = text.strip().lower().removesuffix("b").rstrip()
    unit = next((u for u in ("ki", "mi", "gi", "ti", "k", "m", "g", "t") if digits.endswith(u)), "")
    number = _number(digits.removesuffix(unit), _UNITS[unit])
    if number is None:
        raise UsageError(f"{flag} takes a size, such as 500MB, 4GiB or 1e9; got {text!r}")
    return number


def readable(nbytes: int) -> str:
    """Return a number of bytes for people, in powers of 1024."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min(len(units) - 1, max(0, nbytes.bit_length() - 1) // 10)
    return f"{nbytes / 1024**power:.4g} {units[power]}"


def _number(text: str, unit: int = 1) -> int | None:
    """Return a whole number of at least 1, None where the text says no such thing."""
    try:
        number = float(text) * unit
    except ValueError:
        return None
    return int(number) if math.isfinite(number) and number >= 1 else None
