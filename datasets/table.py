"""Rows of a table as people save it: CSV from any spreadsheet, or Parquet."""

import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tnet.errors import DataError, one_line

_DELIMITERS = (",", ";", "\t")
_PARQUET = (".parquet", ".pq")
_MARK = "\ufeff"
_SHOWN = 5  # row numbers in a sentence


class TableError(DataError):
    """A table that the user can mend."""

    exit_code = 2


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        number: of its line in the file, the header being 1; in Parquet the row's own, from 2 on.
        cells: a text for each column, without blanks around it.
    """

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table in memory.

    Attributes:
        path: of its file.
        columns: names, as written.
        rows: in their order; lines without any text are left out.
        delimiter: between the columns; a comma for Parquet.
        marked: whether the text began with a byte order mark, as spreadsheets want it.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    delimiter: str
    marked: bool = False

    def find(self, names: Iterable[str]) -> int | None:
        """Return the index of the first of ``names`` that is a column, whatever its case."""
        known = [plain(column) for column in self.columns]
        return next((known.index(plain(name)) for name in names if plain(name) in known), None)


def read_table(path: Path) -> Table:
    """Read a CSV (UTF-8 or UTF-16; ``,``, ``;`` or tab between columns) or a Parquet file.

    Raises:
        TableError: if it cannot be read, or has no header or no row.
    """
    if path.suffix.lower() in _PARQUET:
        table = Table(path, *_parquet(path), ",")
    else:
        table = _csv(path)
    if not table.rows:
        raise TableError(f"{path} holds no rows; write one a line below the header, one an image")
    return table


def plain(name: str) -> str:
    """Return a column's name without case, blanks and variants of letters such as µ."""
    folded = unicodedata.normalize("NFKC", name).casefold().strip()
    return re.sub(r"[\s\-]+", "_", folded)


def listed(numbers: Sequence[int]) -> str:
    """Return row numbers for a sentence: "row 3", "rows 3, 5 and 9", "rows 3, 4, 5 and 7 more"."""
    if len(numbers) == 1:
        return f"row {numbers[0]}"
    shown = [str(number) for number in numbers[:_SHOWN]]
    if len(numbers) > len(shown):
        return f"rows {', '.join(shown)} and {len(numbers) - len(shown)} more"
    return f"rows {', '.join(shown[:-1])} and {shown[-1]}"


def _csv(path: Path) -> Table:
    text, marked = _text(path)
    told = re.match(r"sep=(.)(?:\r\n|\r|\n)", text, re.IGNORECASE)  # as spreadsheets write it
    skipped = 0
    if told:
        text, skipped = text[told.end() :], 1
    # Lines may end in any system's way; an old one's is a carriage return alone.
    first = next(io.StringIO(text, newline=""), "").rstrip("\r\n")
    delimiter = told[1] if told else max(_DELIMITERS, key=lambda d: len(_cells(first, d)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns: tuple[str, ...] = ()
    rows: list[Row] = []
    number = 1 + skipped
    try:
        for cells in reader:
            found = tuple(cell.strip() for cell in cells)
            if not any(found):
                pass
            elif not columns:
                columns = found
            else:
                rows.append(Row(number, _fitted(path, number, found, columns, delimiter)))
            number = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise TableError(f"{path}: row {number} cannot be read ({one_line(error)})") from error
    return Table(path, columns, tuple(rows), delimiter, marked)


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _fitted(
    path: Path, number: int, cells: tuple[str, ...], columns: tuple[str, ...], delimiter: str
) -> tuple[str, ...]:
    """Return as many cells as there are columns; empty ones at the end may be missing or too many.

    Raises:
        TableError: if there are more values than columns.
    """
    if any(cells[len(columns) :]):
        shown = "tab" if delimiter == "\t" else delimiter
        raise TableError(
            f"{path}: row {number} has {len(cells)} values and the header {len(columns)}; put "
            f'values that hold a {shown} in quotes, as in "1{shown}2"'
        )
    return (*cells, *[""] * (len(columns) - len(cells)))[: len(columns)]


def _text(path: Path) -> tuple[str, bool]:
    """Return the text of a file in UTF-8 or UTF-16, and whether it has a byte order mark."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TableError(f"{path} cannot be read ({error.strerror or error})") from error
    encoding = "utf-8"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in data[:2]:  # ASCII as UTF-16 without its mark
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TableError(
            f"{path}: row {line} holds a letter that is not in UTF-8, perhaps as an older Windows "
            'encoding writes it; save the table again as "CSV UTF-8"'
        ) from error
    marked = encoding == "utf-16" or text.startswith(_MARK)
    return text.removeprefix(_MARK), marked


def _parquet(path: Path) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise TableError(
            f"{path} is read by pyarrow, which is not installed; install it (pip install pyarrow), "
            "or save the table as CSV"
        ) from error
    try:
        table = parquet.read_table(path)
    except Exception as error:  # damaged files fail in many ways
        raise TableError(f"{path} cannot be read as Parquet ({one_line(error)})") from error
    columns = tuple(str(name) for name in table.column_names)
    values = [column.to_pylist() for column in table.columns]
    rows = [
        Row(number, tuple(_cell(value) for value in cells))
        for number, cells in enumerate(zip(*values, strict=True), 2)
    ]
    return columns, tuple(row for row in rows if any(row.cells))


def _cell(value: Any) -> str:
    """Return a value as the text that a CSV would hold."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole numbers become floats where some are missing
    return str(value).strip()
