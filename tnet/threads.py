"""The threads that all pyramids of a process share."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from numpy.typing import NDArray

Pixels = NDArray[Any]
_Item = TypeVar("_Item")


def side_by_side(
    fill: Callable[[_Item, Pixels], None],
    items: Sequence[_Item],
    out: Sequence[Pixels],
    threads: int | None = None,
) -> None:
    """Call ``fill`` for every item and its pixels, in threads where there are several.

    Args:
        fill: called once an item.
        items: what to fill from.
        out: what to fill, one an item.
        threads: how many at once; None is what suits the processor.
    """
    run = map if len(items) < 2 else _pool(os.getpid(), threads).map
    for _ in run(fill, items, out):
        pass


@cache
def _pool(process: int, threads: int | None) -> ThreadPoolExecutor:
    """Return the threads that all pyramids share; a forked process needs its own."""
    count = threads or min(16, 2 * (os.cpu_count() or 1))
    return ThreadPoolExecutor(count, f"tnet-read-{process}")
