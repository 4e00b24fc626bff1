"""One look at every row of a table, several at once: what is waited for is the disk."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tnet.datasets.entries import Entry

_Item = TypeVar("_Item")

Told = Callable[[int, int], None]


def side_by_side(
    look: Callable[[Entry], _Item], entries: Sequence[Entry], told: Told | None = None
) -> list[_Item]:
    """Return what ``look`` makes of every row, in order, several at once.

    Args:
        look: at one row.
        entries: the rows.
        told: called with how many are done, and how many there are.

    Raises:
        Exception: the first that ``look`` raises; what has not begun then never does.
    """
    found = []
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as threads:
        try:
            for result in threads.map(look, entries):
                found.append(result)
                if told is not None:
                    told(len(found), len(entries))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return found
