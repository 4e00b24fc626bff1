"""What came of each image, as a table, a CSV file and JSON; and how commands talk on stderr."""

import csv
import io
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tnet.errors import TNetError

if TYPE_CHECKING:
    from tnet.record import Walk

ALL_FAILED = 3
SOME_FAILED = 4
FAILED = "failed"

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a spreadsheet recognises one


class OutputError(TNetError):
    """A result that cannot be written: the disk is full, or it is forbidden."""

    exit_code = 6


@dataclass(frozen=True)
class Result:
    """What came of one image; an image that failed has an ``error`` and no numbers.

    Attributes:
        image: its path as found.
        outcome: "class", "no evidence", or "failed".
        label: the most probable class.
        confidence: the label's probability.
        probabilities: of each class.
        glimpses: how many.
        pixels: how many the network looked at.
        share: the same as a fraction of the image's own.
        seconds: wall time of the walk.
        width, height: of level 0, in pixels.
        mpp: µm per level-0 pixel, the mean of x and y.
        notes: what the user should know of it.
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
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values; ``error`` only where there is one."""
        values = asdict(self)
        if self.error is None:
            del values["error"]
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
        glimpses=len(walk.glimpses),
        pixels=walk.pixels,
        share=walk.share,
        seconds=walk.seconds,
        width=walk.width,
        height=walk.height,
        mpp=None if mpp is None else sum(mpp) / 2,
        notes=walk.notes,
    )


def reason(image: str, error: Exception) -> str:
    """Return why an image failed, as one sentence that names it."""
    if isinstance(error, TNetError):
        said = str(error)
        return said if image in said else f"{image}: {said}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"{image}: there is not enough memory for it; try --batch 1, or a tiled file"
    about = str(error).strip().partition("\n")[0]
    return f"{image} cannot be read: {about or type(error).__name__}"


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

    clean = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*clean, strict=True)]
    lines = []
    for row in clean:
        padded = []
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if index in right else cell + space)
        lines.append("  ".join(padded).rstrip())
    return lines


def csv_text(results: Sequence[Result], classes: Sequence[str]) -> str:
    """Return the results as CSV with one column ``p_CLASS`` a class."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    before = ("image", "outcome", "label", "confidence")
    after = ("glimpses", "pixels", "share", "seconds", "width", "height", "mpp", "error")
    writer.writerow([*before, *(f"p_{name}" for name in classes), *after])
    for result in results:
        values = [getattr(result, name) for name in before]
        values += [result.probabilities.get(name) for name in classes]
        values += [getattr(result, name) for name in after]
        writer.writerow([_cell(value) for value in values])
    return file.getvalue()


def _cell(value: object) -> object:
    """Keep text from being taken for a formula when a spreadsheet opens the file."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and rename it, so that none is ever half-written.

    Raises:
        OutputError: if it cannot be written.
    """
    partial = path.with_name(f".{os.getpid()}.partial")
    try:
        if isinstance(content, str):
            content = content.encode("utf-8", "backslashreplace")
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


def print_json(value: object) -> None:
    """Print one JSON document to stdout, in characters that it can take."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=1, allow_nan=False)
    print(text)


def clean(text: str) -> str:
    """Return text that cannot steer a terminal: control characters show as their codes."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def shown(text: str) -> str:
    """Return text that is safe to print to stdout, in characters that it can take."""
    encoding = sys.stdout.encoding or "ascii"
    return clean(text).encode(encoding, "backslashreplace").decode(encoding)


def say(sentence: str) -> None:
    """Print one line to stderr, which shows what it cannot encode as codes."""
    print(f"tnet: {clean(sentence.replace(chr(10), ' '))}", file=sys.stderr)
