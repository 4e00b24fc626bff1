"""How an image is cut into the tiles that the browser asks for. Pure arithmetic."""

from dataclasses import dataclass

from tnet.geometry import Region

SIDE = 512


@dataclass(frozen=True)
class Tiling:
    """Squares of ``SIDE`` pixels at every power of two.

    Attributes:
        width, height: of the image, in pixels of its level 0.
    """

    width: int
    height: int

    @property
    def last_level(self) -> int:
        """The level of full resolution; at level 0 the image fits into one tile."""
        longest = -(-max(self.width, self.height) // SIDE)
        return (longest - 1).bit_length()

    def tile(self, level: int, column: int, row: int) -> tuple[Region, tuple[int, int]] | None:
        """Return a tile's region and its size in pixels; None where there is no such tile.

        One pixel of a tile is 2 ** (last_level - level) pixels of the image, also in the last
        column and row, where a region may therefore end past the image by a part of a pixel.
        """
        if not 0 <= level <= self.last_level:
            return None
        scale = 2 ** (self.last_level - level)
        across, down = -(-self.width // scale), -(-self.height // scale)
        left, top = column * SIDE, row * SIDE
        if not (0 <= left < across and 0 <= top < down):
            return None
        size = min(SIDE, across - left), min(SIDE, down - top)
        return Region(left * scale, top * scale, size[0] * scale, size[1] * scale), size
