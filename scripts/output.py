"""What commands print: what came of each image, as a table and as JSON, and talk on stderr."""

import json
import math
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tnet.errors import TNetError
from tnet.errors import counted as counted  # noqa: PLC0414 - the commands say it from here

if TYPE_CHECKING:
    from tnet.record import Walk

ALL_FAILED = 3
SOME_FAILED = 4
FAILED = "failed"

# What a slip of ours raises; where a reader stumbles over a damaged file, it may raise them too.
_SLIPS = (AssertionError, AttributeError, NameError, TypeError)
_READERS = "tnet.adapters"


@dataclass(frozen=True)
class Result:
    """What came of one image; an image that failed has an ``error`` and no numbers.

    Attributes:
        image: its path as found.
        outcome: "class", "no evidence", or "failed".
        label: the most probable class.
        confidence: the label's probability.
        probabilities: of each class.
        glimpses: views that went through the network.
        pixels: how many the network looked at.
        share: the same as a fraction of the image's own.
        seconds: wall time of the walk.
        width, height: of level 0, in pixels.
        mpp: µm per level-0 pixel, the mean of x and y.
        notes: what the user should know of it.
        walk: the file of its walk, relative to the folder of results, if one was written.
        error: why it failed.
    """

    image: str
    outcome: str = FAILED
    label: str | None = None
    confidence: float | None = None
    probabilities: dict[str, float | None] = field(default_factory=dict)
    glimpses: int | None = None
    pixels: int | None = None
    share: float | None = None
    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    mpp: float | None = None
    notes: tuple[str, ...] = ()
    walk: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values; ``walk`` and ``error`` only where there is one."""
        values = asdict(self)
        for name in ("walk", "error"):
            if values[name] is None:
                del values[name]
        return values


def result_of(image: str, walk: "Walk", mpp: tuple[float, float] | None) -> Result:
    """Return the result of a walk."""
    return Result(
        image=image,
        outcome=walk.outcome,
        label=walk.label,
        confidence=walk.confidence,
        probabilities={
            name: None if math.isnan(p) else float(p)
            for name, p in zip(walk.classes, walk.probabilities, strict=True)
        },
        glimpses=walk.looks,
        pixels=walk.pixels,
        share=walk.share,
        seconds=walk.seconds,
        width=walk.width,
        height=walk.height,
        mpp=None if mpp is None else sum(mpp) / 2,
        notes=walk.notes,
    )


def reason(image: str, error: Exception, failed: str = "cannot be read") -> str:
    """Return why an image failed, as one sentence that names it.

    Args:
        image: its path.
        error: what was raised.
        failed: what did not work, for an error that does not say.
    """
    if isinstance(error, TNetError):
        said = str(error)
        return said if image in said else f"{image}: {said}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"{image}: there is not enough memory for it; try --batch 1, or a tiled file"
    about = str(error).strip().partition("\n")[0]
    if isinstance(error, _SLIPS) and _is_ours(error):
        return f"{image}: internal error: {type(error).__name__}: {about}"
    return f"{image} {failed}: {about or type(error).__name__}"


def _is_ours(error: Exception) -> bool:
    """Say whether the innermost function of TNet that an error passed is none that reads files."""
    frames = traceback.walk_tb(error.__traceback__)
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in frames]
    inside = [name for name in modules if name.partition(".")[0] == "tnet"]
    return bool(inside) and not inside[-1].startswith(_READERS)


def exit_code(failed: int, total: int) -> int:
    """Return 0 if none failed, 3 if all did, else 4."""
    if failed == 0:
        return 0
    return ALL_FAILED if failed == total else SOME_FAILED


def table(results: Sequence[Result]) -> str:
    """Return the results as aligned text: a heading, and a line an image."""
    rows = [["image", "class", "confidence", "glimpses", "looked at", "seconds"]]
    for result in results:
        named = result.label or result.outcome
        rows.append(
            [
                result.image,
                named,
                "" if result.confidence is None else f"{result.confidence:.3f}",
                "" if result.glimpses is None else str(result.glimpses),
                "" if result.share is None else f"{percent(result.share)} %",
                "" if result.seconds is None else f"{result.seconds:.2f}",
            ]
        )
    return "\n".join(columns(rows, right=(2, 3, 4, 5)))


def percent(share: float) -> str:
    """Return a fraction in percent, with two digits that count."""
    value = share * 100
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return rows as lines with aligned columns; those in ``right`` are aligned to the right."""
    from rich.cells import cell_len

    plain = [[shown(clean(cell)) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*plain, strict=True)]
    lines = []
    for row in plain:
        padded = []
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if index in right else cell + space)
        lines.append("  ".join(padded).rstrip())
    return lines


def print_json(value: object) -> None:
    """Print one JSON document to stdout, in characters that it can take; NaN becomes null."""
    value = _known_to_json(value)
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=1, allow_nan=False)
    print(text)


def _known_to_json(value: Any) -> Any:
    """Return a value without the numbers that JSON does not know."""
    if isinstance(value, dict):
        return {name: _known_to_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_known_to_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clean(text: str) -> str:
    """Return a line that cannot steer a terminal: control characters show as their codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(text: str) -> str:
    """Return lines that are safe to print to stdout, in characters that it can take."""
    encoding = sys.stdout.encoding or "ascii"
    lines = "\n".join(map(clean, text.split("\n")))
    return lines.encode(encoding, "backslashreplace").decode(encoding)


def say(sentence: str) -> None:
    """Print one line to stderr, which shows what it cannot encode as codes."""
    print(f"tnet: {clean(sentence)}", file=sys.stderr)
