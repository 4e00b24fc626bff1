"""How far and how wide to walk: a plan, saved in the model file and changeable at inference."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from tnet.errors import DataError, UsageError
from tnet.fields import check_resolution, check_view, is_number, one_of
from tnet.geometry import Grid, Region, Rule
from tnet.sampling import POLICIES, Policy

# More than anyone needs, and little enough that a plan from a stranger's file does no harm.
MOST_CELLS = 65_536
MOST_STEPS = 32

# Sides that are reached through several fractions carry rounding errors.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Step:
    """One step down: the grid laid over every view of a level, and how many cells are taken.

    Attributes:
        rows, columns: the grid of candidates.
        patch: side of a candidate as a fraction of its parent's side.
        glimpses: how many candidates of each view are looked at.

    Raises:
        UsageError: if a number makes no sense.
    """

    rows: int
    columns: int
    patch: float
    glimpses: int

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "glimpses"):
            if not is_number(getattr(self, name), int):
                raise UsageError(
                    f"plan: {name} must be a whole number, got {getattr(self, name)!r}"
                )
        if not is_number(self.patch, float):
            raise UsageError(f"plan: patch must be a number, got {self.patch!r}")
        if self.rows * self.columns > MOST_CELLS:
            raise UsageError(
                f"plan: a grid may have at most {MOST_CELLS:,} cells, got "
                f"{self.rows} x {self.columns}"
            )
        try:
            self.grid()
        except ValueError as error:
            raise UsageError(f"plan: {error}") from error
        if not 0 <= self.glimpses <= self.rows * self.columns:
            raise UsageError(
                f"plan: glimpses must be between 0 and {self.rows * self.columns} for a "
                f"{self.rows} x {self.columns} grid, got {self.glimpses}"
            )

    def grid(self, rule: Rule = "exact") -> Grid:
        """Return the grid of candidates under a rule."""
        return Grid(self.rows, self.columns, self.patch, rule)


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole walk, from the first look at the image to the last glimpse.

    Attributes:
        view: (width, height) in pixels at which every region is looked at.
        steps: one a level below the first look; none classifies from the first look alone.
        until: when a view is not subdivided any more: "steps" after the last step; "native"
            when it already shows every pixel of the image; a number when it is at least as
            fine as that many µm per px. With the latter two the last step is repeated as
            often as needed.
        tiles: look at every tile that has foreground, and at nothing else: tiles of the view's
            size side by side, at "native" resolution or at that many µm per px. There are no
            steps then and nothing is chosen; None walks.
        tiles_share: share of these tiles that is looked at, drawn anew each time; below 1 while
            training, lest single tiles be learned by heart.
        first_view: (width, height) of the first look alone; None takes ``view``. A finer first
            look finds smaller things.
        rule: where candidates lie: "exact" fractions, or the "official" rounding.
        resampling: "antialias", or "official" (bilinear at full resolution, aliased).
        outside: what lies beyond a parent's border: the "image", or "zero" as released.
        aspect: "stretch" squeezes an image that is not as wide as the view is, as released;
            "keep" enlarges the first region instead, so that shapes are true.
        revisit: look again at a region that was seen already, as released.
        background: leave out candidates of which less than this fraction is foreground
            (neither nodata nor white glass) on the parent's view; None looks everywhere.
        positions: "cells" are the integer grid coordinates as released; "centres" are the
            region's centre on the first view's own scale, the same for any grid.
        policy: how cells are chosen when nothing else is said.
        snap: how far a region may be moved, as a fraction of its own sides, so that fewer
            stored tiles lie under it; 0 moves nothing.

    Raises:
        UsageError: if a field makes no sense.
    """

    view: tuple[int, int] = (224, 224)
    steps: tuple[Step, ...] = ()
    until: Literal["steps", "native"] | float = "steps"
    rule: Rule = "exact"
    resampling: Literal["antialias", "official"] = "antialias"
    outside: Literal["image", "zero"] = "image"
    aspect: Literal["stretch", "keep"] = "stretch"
    revisit: bool = False
    background: float | None = None
    positions: Literal["cells", "centres"] = "centres"
    policy: Policy = "greedy"
    snap: float = 0.0
    tiles: Literal["native"] | float | None = None
    tiles_share: float = 1.0
    first_view: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_view("view", self.view)
        if self.first_view is not None:
            check_view("first_view", self.first_view)
        if len(self.steps) > MOST_STEPS:
            raise UsageError(
                f"plan: a walk may have at most {MOST_STEPS} steps, got {len(self.steps)}"
            )
        one_of("rule", self.rule, ("exact", "official"))
        one_of("resampling", self.resampling, ("antialias", "official"))
        one_of("outside", self.outside, ("image", "zero"))
        one_of("aspect", self.aspect, ("stretch", "keep"))
        one_of("positions", self.positions, ("cells", "centres"))
        one_of("policy", self.policy, POLICIES)
        check_resolution("until", self.until, ("steps", "native"))
        if self.until != "steps" and (not self.steps or self.steps[-1].patch >= 1):
            raise UsageError("plan: 'until' needs a last step whose patch is smaller than 1")
        if self.background is not None and not (
            is_number(self.background, float) and 0 <= self.background <= 1
        ):
            raise UsageError(f"plan: background must be between 0 and 1, got {self.background!r}")
        if not isinstance(self.revisit, bool):
            raise UsageError(f"plan: revisit must be true or false, got {self.revisit!r}")
        _check_snap(self)
        _check_tiles(self)

    def view_at(self, level: int) -> tuple[int, int]:
        """Return (width, height) in pixels of a level's views; 0 is the first look."""
        return self.view if level > 0 or self.first_view is None else self.first_view

    def step(self, level: int) -> Step | None:
        """Return the step from ``level`` (0 is the first look) to the next, or None at the end.

        Beyond the last step the last one is repeated, unless the plan ends with its steps.
        """
        if level < len(self.steps):
            return self.steps[level]
        return None if self.until == "steps" else self.steps[-1]

    def fine_enough(self, region: Region, mpp: tuple[float, float] | None, level: int = 0) -> bool:
        """Say whether a region's view is as fine as the plan asks for.

        Args:
            region: in pixels of level 0.
            mpp: µm per px of level 0, x and y.
            level: of the walk, which says how large the view is.

        Raises:
            DataError: if the plan is in µm per px and the image does not know its scale.
        """
        if self.until == "steps":
            return False
        view = self.view_at(level)
        limit = _pixels_of(self.until, mpp)
        scale = (region.width / view[0], region.height / view[1])
        return all(side <= most * (1 + _ROUNDING) for side, most in zip(scale, limit, strict=True))

    def tile(self, mpp: tuple[float, float] | None) -> tuple[float, float]:
        """Return width and height of a tile in pixels of level 0.

        Args:
            mpp: µm per px of level 0, x and y.

        Raises:
            UsageError: if the plan has no tiles.
            DataError: if the plan is in µm per px and the image does not know its scale.
        """
        if self.tiles is None:
            raise UsageError("plan: this plan walks and has no tiles")
        scale = _pixels_of(self.tiles, mpp)
        return self.view[0] * scale[0], self.view[1] * scale[1]

    def with_glimpses(self, glimpses: Sequence[int]) -> "Plan":
        """Return the plan with other numbers of glimpses, one a step; their count is the depth.

        More numbers than steps repeat the last step's grid.

        Raises:
            UsageError: if a number does not fit its grid, or there is no grid to repeat.
        """
        if 0 in list(glimpses)[:-1]:
            raise UsageError(
                f"plan: nothing is looked at below a step of 0 glimpses; leave out what follows "
                f"the 0 in {','.join(str(count) for count in glimpses)}"
            )
        if self.tiles is not None:
            raise UsageError("plan: this plan looks at every tile and takes no glimpses")
        if glimpses and not self.steps:
            raise UsageError("plan: this plan looks once and has no grid for more glimpses")
        steps = tuple(
            replace(self.steps[min(level, len(self.steps) - 1)], glimpses=count)
            for level, count in enumerate(glimpses)
        )
        return replace(self, steps=steps, until="steps")

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-able values."""
        first = None if self.first_view is None else list(self.first_view)
        steps = [asdict(step) for step in self.steps]
        return asdict(self) | {"view": list(self.view), "first_view": first, "steps": steps}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Plan":
        """Build a plan from :meth:`to_dict`'s values.

        Raises:
            UsageError: for an unknown field or a value that makes no sense.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"plan: a plan is named values, got {values!r}")
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise UsageError(f"plan: unknown field {name!r}")
        try:
            steps = tuple(Step(**step) for step in values.get("steps", ()))
            view = tuple(values.get("view", (224, 224)))
            first = values.get("first_view")
            first = None if first is None else tuple(first)
            return cls(**(dict(values) | {"steps": steps, "view": view, "first_view": first}))
        except TypeError as error:
            raise UsageError(f"plan: {error}") from error


def _pixels_of(resolution: str | float, mpp: tuple[float, float] | None) -> tuple[float, float]:
    """Return how many pixels of level 0, x and y, a pixel of a view shows at a resolution.

    Args:
        resolution: "native", or µm per px.
        mpp: µm per px of level 0, x and y.

    Raises:
        DataError: if the resolution is in µm per px and the image does not know its scale.
    """
    if isinstance(resolution, str):
        return 1.0, 1.0
    if mpp is None:
        raise DataError(
            "the plan is made for a number of µm per px, but the image does not say how large "
            "its pixels are: give --mpp, or a plan for 'native' pixels"
        )
    return resolution / mpp[0], resolution / mpp[1]


def _check_tiles(plan: Plan) -> None:
    if not (is_number(plan.tiles_share, float) and 0 < plan.tiles_share <= 1):
        raise UsageError(
            f"plan: tiles_share must be above 0 and at most 1, got {plan.tiles_share!r}"
        )
    if plan.tiles is None:
        if plan.tiles_share != 1:
            raise UsageError("plan: tiles_share is of a plan that looks at every tile")
        return
    check_resolution("tiles", plan.tiles, ("native",))
    if plan.steps or plan.until != "steps":
        raise UsageError(
            "plan: a plan that looks at every tile has no steps; leave one of them out"
        )
    if plan.resampling == "official" or plan.rule == "official":
        raise UsageError("plan: tiles are cut by the exact rule and averaged, never 'official'")
    if plan.first_view is not None:
        raise UsageError("plan: a plan that looks at every tile has no first look to size")


def _check_snap(plan: Plan) -> None:
    # Any place in a grid of tiles is within half a side of the best one.
    if not (is_number(plan.snap, float) and 0 <= plan.snap <= 0.5):
        raise UsageError(f"plan: snap must be between 0 and 0.5, got {plan.snap!r}")
    if plan.snap and "official" in (plan.rule, plan.resampling):
        raise UsageError(
            "plan: snap moves regions, which the official rule and resampling never do; leave it "
            "at 0 for them"
        )
