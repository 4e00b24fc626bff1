"""CSV: one row a glimpse, safe to open in a spreadsheet."""

import csv
import io
import math
from collections.abc import Sequence

from tnet.adapters.exports.rows import classes_of, columns, rows
from tnet.record import Walk

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a spreadsheet recognises one


def export(walks: Sequence[Walk]) -> bytes:
    """Return walks as a CSV file in UTF-8; a text that starts like a formula gets a leading '."""
    names = columns(classes_of(walks))
    lines = [csv_line([csv_cell(name) for name in names])]
    for walk in walks:
        lines.extend(csv_line([csv_cell(row.get(name)) for name in names]) for row in rows(walk))
    return "".join(lines).encode("utf-8", "backslashreplace")


def csv_line(cells: Sequence[object]) -> str:
    """Return cells as one row of a table."""
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerow(cells)
    return file.getvalue()


def csv_cell(value: object) -> object:
    """Return a value as a table may hold it: no formula, and nothing for what is no number."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return None if isinstance(value, float) and not math.isfinite(value) else value
