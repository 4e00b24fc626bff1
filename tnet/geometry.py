"""Where a walk may look: regions of an image, and the grid of candidates inside a region.

Pure arithmetic. Everything is in pixels of level 0 (the full resolution), x to the right and
y downwards, and a pixel covers the square from its index to its index + 1.
"""

import math
from dataclasses import dataclass
from typing import Literal

from tnet.errors import UsageError

Rule = Literal["exact", "official"]


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in pixels of level 0; may be fractional and may reach past the image.

    Raises:
        ValueError: if a number is not finite or a side is not positive.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        # Every read makes one: a generator over the four takes longer than all of the rest.
        finite = math.isfinite
        if not (finite(self.x) and finite(self.y) and finite(self.width) and finite(self.height)):
            raise ValueError(f"a region needs finite numbers, got {self}")
        if self.width <= 0 or self.height <= 0:
            raise ValueError(
                f"a region needs a positive size, got {self.width} x {self.height} pixels"
            )

    @property
    def right(self) -> float:
        """The x coordinate just past the last column."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y coordinate just past the last row."""
        return self.y + self.height

    @property
    def area(self) -> float:
        """Square pixels of level 0."""
        return self.width * self.height

    def intersection(self, other: "Region") -> "Region | None":
        """Return what both cover, or None where they do not overlap."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        width, height = min(self.right, other.right) - x, min(self.bottom, other.bottom) - y
        return Region(x, y, width, height) if width > 0 and height > 0 else None

    def contains(self, other: "Region") -> bool:
        """Say whether ``other`` lies wholly inside, its border included."""
        return (
            self.x <= other.x
            and self.y <= other.y
            and self.right >= other.right
            and self.bottom >= other.bottom
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """The candidate children of a region: ``rows`` x ``columns`` cells, row by row.

    ``patch`` is the side of a cell as a fraction of the region's side (the released code calls
    it "overlap"); cells overlap where ``patch`` is larger than 1 / rows.

    Two rules place the cells. ``exact`` spreads them evenly from border to border in exact
    fractions of the parent: the first cell starts where the parent starts, the last ends where
    it ends. ``official`` repeats the rounding of the released TNet code, in whole pixels, where
    cells may begin before the parent or end after it.

    Raises:
        ValueError: if there are no rows or columns, or ``patch`` is outside (0, 1].
    """

    rows: int
    columns: int
    patch: float
    rule: Rule = "exact"

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(
                f"a grid needs at least one row and one column, got {self.rows} x {self.columns}"
            )
        if not 0 < self.patch <= 1:
            raise ValueError(f"the patch fraction must be above 0 and at most 1, got {self.patch}")
        if self.rule not in ("exact", "official"):
            raise ValueError(f"the rule must be 'exact' or 'official', got {self.rule!r}")

    @property
    def cells(self) -> int:
        """How many candidates a region has."""
        return self.rows * self.columns

    def row_column(self, cell: int) -> tuple[int, int]:
        """Return the row and the column of a cell index.

        Raises:
            IndexError: if there is no such cell.
        """
        if not 0 <= cell < self.cells:
            raise IndexError(f"cell must be between 0 and {self.cells - 1}, got {cell}")
        return divmod(cell, self.columns)

    def spans(self, parent: Region) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """Return (y, height) of each row and (x, width) of each column inside ``parent``."""
        place = _official_span if self.rule == "official" else _exact_span
        return (
            [place(parent.y, parent.height, self.rows, i, self.patch) for i in range(self.rows)],
            [
                place(parent.x, parent.width, self.columns, i, self.patch)
                for i in range(self.columns)
            ],
        )

    def child(self, parent: Region, cell: int) -> Region:
        """Return candidate number ``cell`` of ``parent``."""
        row, column = self.row_column(cell)
        place = _official_span if self.rule == "official" else _exact_span
        y, height = place(parent.y, parent.height, self.rows, row, self.patch)
        x, width = place(parent.x, parent.width, self.columns, column, self.patch)
        return Region(x, y, width, height)

    def children(self, parent: Region) -> list[Region]:
        """Return all candidates of ``parent``, row by row (row-major, as the logits are)."""
        rows, columns = self.spans(parent)
        return [Region(x, y, width, height) for y, height in rows for x, width in columns]

    def centres(self) -> tuple[list[float], list[float]]:
        """Return the centres, as fractions of the parent, of the rows and of the columns.

        They are those of the exact rule; the official rounding moves them by less than a pixel
        or two of level 0.
        """
        rows, columns = Grid(self.rows, self.columns, self.patch).spans(Region(0, 0, 1, 1))
        return [a + b / 2 for a, b in rows], [a + b / 2 for a, b in columns]


def _exact_span(
    start: float, side: float, count: int, index: int, patch: float
) -> tuple[float, float]:
    """Return origin and length of cell ``index`` of ``count``; one cell alone is centred."""
    length = side * patch
    share = index / (count - 1) if count > 1 else 0.5
    return start + (side - length) * share, length


def _official_span(
    start: float, side: float, count: int, index: int, patch: float
) -> tuple[float, float]:
    """Return origin and length by the released code's rounding.

    The patch is rounded half to even, the stride rounded up, and the surplus that the rounding
    makes is split before and after. The released code divides by zero for one cell; there the
    stride does not matter and the surplus rule centres it.
    """
    length = round(side * patch)
    if length < 1:
        raise UsageError(
            f"a patch of {patch} of {side:g} pixels is less than one pixel; the image is too small "
            "for the plan's official rule, so use fewer steps, or the exact rule"
        )
    stride = math.ceil((side - length) / (count - 1)) if count > 1 else 0
    before = math.ceil(((count - 1) * stride + length - side) / 2)
    return start + index * stride - before, float(length)
