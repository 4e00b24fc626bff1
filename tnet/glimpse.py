"""The parts of a walk's record: a look at a region, and what the next look was chosen from."""

from dataclasses import dataclass

from tnet.geometry import Grid, Region, Rule


@dataclass(frozen=True, slots=True)
class Glimpse:
    """One look at one region.

    Attributes:
        level: 0 for the first look at the whole image.
        region: in pixels of level 0.
        parent: index of the glimpse whose grid it was chosen from; None for the first.
        row, column: its cell in that grid; None for the first.
        probability: of the cell, among all that could be chosen; 1 for the first.
        log_prob: log-probability of the draw given the draws before it (Plackett-Luce); their
            sum is that of the whole ordered sample. 0 for the first.
        rank: the order of the draw among its siblings, from 0.
        weight: its share in the aggregated feature; the weights of a walk sum to 1.
        contributions: what it adds to each class logit.
    """

    level: int
    region: Region
    parent: int | None
    row: int | None
    column: int | None
    probability: float
    log_prob: float
    rank: int
    weight: float
    contributions: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Chances:
    """The location distribution over the grid of one glimpse.

    Attributes:
        parent: index of the glimpse that the grid was laid over.
        rows, columns, patch: of the grid, see :class:`tnet.geometry.Grid`.
        probabilities: of the cells, row by row, to six digits; None for a cell that could not be
            chosen (background, seen already, or outside of the image).
    """

    parent: int
    rows: int
    columns: int
    patch: float
    probabilities: tuple[float | None, ...]

    def grid(self, rule: Rule = "exact") -> Grid:
        """Return the grid under a plan's rule; it places the cells inside the parent's region.

        A cell that was chosen may have been moved a little (``Plan.snap``): where it was looked
        at is its glimpse's region.
        """
        return Grid(self.rows, self.columns, self.patch, rule)
