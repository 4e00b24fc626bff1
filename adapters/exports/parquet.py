"""Parquet: the table of glimpses with its types."""

import io
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from tnet.adapters.exports.rows import classes_of, columns, rows
from tnet.errors import UsageError
from tnet.record import Walk

_TEXT = ("image", "unit", "crs")
_WHOLE = ("glimpse", "level", "parent", "row", "column")


def export(walks: Sequence[Walk]) -> bytes:
    """Return walks as a Parquet file.

    Raises:
        UsageError: if pyarrow is not there.
    """
    try:
        pa: Any = import_module("pyarrow")
        pq: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow: install 'tnet[parquet]', or take csv") from error
    names = columns(classes_of(walks))
    fields = []
    for name in names:
        kind = pa.string() if name in _TEXT else pa.float64()
        fields.append(pa.field(name, pa.int64() if name in _WHOLE else kind))
    listed = [row for walk in walks for row in rows(walk)]
    table = pa.Table.from_pylist(listed, schema=pa.schema(fields))
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()
