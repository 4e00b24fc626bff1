"""A walk as a value: what was looked at, how likely that was, and what it was worth.

A record needs neither the model nor the image: reports, viewers and exports are functions of it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.calibration import softmax
from tnet.errors import DataError
from tnet.geometry import Region
from tnet.glimpse import Chances, Glimpse

__all__ = ["NO_EVIDENCE", "SCHEMA", "Chances", "Glimpse", "Walk", "softmax"]

SCHEMA = "tnet.walk/1"

NO_EVIDENCE = "no evidence"

# Of these a glimpse's share does not depend on the entry of its feature.
_ADDITIVE = ("mean", "weighting", "attention", "maxout")

# What walks lack that were written before these came, and what they then are.
_LATER: dict[str, Any] = {
    "first_view": None, "multilabel": False, "grids": [], "aggregate": "",
    "temperature": 1.0, "made": {},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Walk:
    """Everything about one image's walk.

    Attributes:
        image: name of the image.
        width, height: of level 0, in pixels.
        classes: names, in the order of the logits.
        logits: float64 (classes,); the bias and all glimpses' contributions add up to it. NaN
            for an image without evidence.
        probabilities: float64 (classes,), the softmax of the logits divided by ``temperature``;
            with ``multilabel`` the logistic function of each.
        outcome: "class", or "no evidence" for an image of nothing but background.
        bias: the classifier's bias, a number a class.
        glimpses: in the order of the levels; parents come before their children.
        view: (width, height) at which every region was looked at.
        first_view: that of the first look, where it is another; (0, 0) where the network did not
            look at the whole image, but at every tile of it. None is ``view``.
        multilabel: whether classes do not exclude one another.
        spacing, unit, crs, transform: the image's physical frame, if it has one.
        plan: the plan that was followed, as JSON values; its policy is how cells were chosen.
        seed: what the draws started from, if cells were drawn.
        model: name of the model: its file's, or its recipe's if it was never in a file.
        seconds: wall time of the walk, shared evenly among the images of its batch.
        notes: what the reader or the walk had to say.
        features: float32 (glimpses, D), the placed features; not written to JSON.
        grids: the location distribution of every grid that was chosen from, in the order of
            their glimpses.
        aggregate: name of what made one feature out of all: "mean", "weighting", "attention",
            "maxout", "aff", "iaff", or another module's class; "" where it is not known.
        temperature: of the model's calibration, see :mod:`tnet.calibration`; 1 is none.
        made: by which versions of tnet and torch, and the SHA-256 of the model's file, as
            "tnet", "torch" and "model_sha256"; what is not known is left out.
    """

    image: str
    width: int
    height: int
    classes: tuple[str, ...]
    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    outcome: str
    bias: tuple[float, ...]
    glimpses: tuple[Glimpse, ...]
    view: tuple[int, int]
    spacing: tuple[float, float] | None = None
    unit: str | None = None
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    model: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    features: NDArray[np.float32] | None = None
    first_view: tuple[int, int] | None = None
    multilabel: bool = False
    grids: tuple[Chances, ...] = ()
    aggregate: str = ""
    temperature: float = 1.0
    made: dict[str, str] = field(default_factory=dict)

    @property
    def additive(self) -> bool:
        """Whether every glimpse has one weight, and contributes its weight times its own logits.

        Contributions add up to the logits in any case. Where levels are fused ("aff", "iaff") a
        glimpse has a weight for every entry of its feature, each a non-linear function of the
        other glimpses; what would be missing without it then says more:
        :func:`tnet.faithfulness.leave_one_out`. False also where the aggregate is not known.
        """
        return self.aggregate in _ADDITIVE

    @property
    def label(self) -> str | None:
        """Name of the most probable class; None without evidence."""
        if self.outcome != "class":
            return None
        return self.classes[int(np.argmax(self.probabilities))]

    @property
    def confidence(self) -> float | None:
        """Probability of the most probable class; None without evidence."""
        return None if self.outcome != "class" else float(self.probabilities.max())

    @property
    def log_prob(self) -> float:
        """Log-probability of all choices of the walk."""
        return math.fsum(glimpse.log_prob for glimpse in self.glimpses)

    @property
    def looks(self) -> int:
        """How many views the network looked at: the glimpses, and the first look if it did."""
        return len(self.glimpses) - (self.first_view == (0, 0))

    @property
    def pixels(self) -> int:
        """How many pixels the network looked at, in all views together."""
        first = self.view if self.first_view is None else self.first_view
        return first[0] * first[1] + (len(self.glimpses) - 1) * self.view[0] * self.view[1]

    @property
    def share(self) -> float:
        """Pixels looked at, as a fraction of the image's own."""
        return self.pixels / (self.width * self.height)

    def _repr_html_(self) -> str:
        """Show the walk in a notebook."""
        from tnet.notebook import html_of

        return html_of(self)

    def __eq__(self, other: object) -> bool:
        """Two walks are equal when their records are; features are not compared."""
        return isinstance(other, Walk) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """Return the walk as JSON-able values, without the features."""
        record: dict[str, Any] = {"schema": SCHEMA}
        for item in fields(self):
            if item.name != "features":
                record[item.name] = _plain(getattr(self, item.name))
        record["additive"] = self.additive
        record["label"] = self.label
        record["cost"] = {
            "glimpses": self.looks,
            "pixels": self.pixels,
            "share": self.share,
        }
        return record

    def to_json(self, indent: int | None = None) -> str:
        """Return the walk as one JSON document (schema ``tnet.walk/1``); a grid takes one line."""
        record = self.to_dict()
        if indent is None:
            return _json(record)
        grids = [_json(grid) for grid in record.pop("grids")]
        text = json.dumps(record, indent=indent, allow_nan=False, ensure_ascii=False)
        return text.removesuffix("\n}") + ',\n"grids": [' + ",\n".join(grids) + "]\n}"

    @classmethod
    def from_json(cls, text: str) -> "Walk":
        """Rebuild a walk from :meth:`to_json`.

        Raises:
            DataError: if the text is not a walk of a schema that we know.
        """
        try:
            record = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"this is not a walk: not JSON ({error})") from error
        schema = record.get("schema") if isinstance(record, dict) else None
        if schema != SCHEMA:
            raise DataError(
                f"this is not a walk that this version reads: its schema is {schema!r}, "
                f"expected {SCHEMA!r}"
            )
        try:
            walk = cls(**_rebuild(record))
            _check(walk)
            return walk
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"this walk is incomplete or damaged: {error!r}") from error


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Turn a field into JSON values; NaN, which JSON does not know, into null."""
    if isinstance(value, np.ndarray):
        return [None if math.isnan(v) else float(v) for v in value]
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Glimpse | Chances):
        return asdict(value)
    return value


def _rebuild(record: dict[str, Any]) -> dict[str, Any]:
    """Turn JSON values into the fields of a walk."""
    record = _LATER | record
    values = {f.name: record[f.name] for f in fields(Walk) if f.name != "features"}
    for name in ("logits", "probabilities"):
        values[name] = np.array(
            [math.nan if v is None else v for v in values[name]], dtype=np.float64
        )
    for name in ("classes", "bias", "view", "spacing", "transform", "notes", "first_view"):
        if values[name] is not None:
            values[name] = tuple(values[name])
    values["made"] = dict(values["made"])
    values["glimpses"] = tuple(
        Glimpse(
            **(
                glimpse
                | {
                    "region": Region(**glimpse["region"]),
                    "contributions": tuple(glimpse["contributions"]),
                }
            )
        )
        for glimpse in values["glimpses"]
    )
    values["grids"] = tuple(
        Chances(**(grid | {"probabilities": tuple(grid["probabilities"])}))
        for grid in values["grids"]
    )
    return values


def _check(walk: Walk) -> None:
    """Refuse a record whose parts do not fit together; a ValueError says which."""
    count = len(walk.classes)
    sizes = [*walk.view, walk.width, walk.height]
    first = list(walk.view if walk.first_view is None else walk.first_view)
    fits = {
        "classes": all(isinstance(name, str) for name in walk.classes),
        "logits": walk.logits.shape == (count,),
        "probabilities": walk.probabilities.shape == (count,),
        "bias": len(walk.bias) == count,
        "sizes": len(sizes) == 4 and min(sizes) >= 1 and len(first) == 2 and min(first) >= 0,
        "multilabel": isinstance(walk.multilabel, bool),
        "outcome": walk.outcome in ("class", NO_EVIDENCE),
        "contributions": all(len(glimpse.contributions) == count for glimpse in walk.glimpses),
        "glimpses": _is_tree(walk.glimpses),
        "aggregate": isinstance(walk.aggregate, str),
        "temperature": 0 < walk.temperature < math.inf,
        "made": all(isinstance(text, str) for text in walk.made.values()),
        "grids": all(_is_distribution(grid, len(walk.glimpses)) for grid in walk.grids),
    }
    wrong = [name for name, good in fits.items() if not good]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} do not fit the rest")


def _is_tree(glimpses: Sequence[Glimpse]) -> bool:
    """Say whether there is a first look, and every other glimpse comes after its parent."""
    if not glimpses or glimpses[0].parent is not None or glimpses[0].level != 0:
        return False
    return all(
        glimpse.parent is not None
        and 0 <= glimpse.parent < index
        and glimpse.level == glimpses[glimpse.parent].level + 1
        for index, glimpse in enumerate(glimpses[1:], start=1)
    )


def _is_distribution(grid: Chances, glimpses: int) -> bool:
    """Say whether there is a probability, or None, for every cell of a glimpse's grid."""
    said = [p for p in grid.probabilities if p is not None]
    return (
        0 <= grid.parent < glimpses
        and len(grid.probabilities) == grid.grid().cells
        and all(0 <= p <= 1 for p in said)
    )
