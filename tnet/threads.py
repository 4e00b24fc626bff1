"""The threads that all pyramids of a process share."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, TypeVar

from numpy.typing import NDArray

Pixels = NDArray[Any]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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
    left = deque(zip(items, out, strict=True))

    def work() -> None:
        while True:
            try:
                item, pixels = left.popleft()
            except IndexError:
                return
            try:
                fill(item, pixels)
            except BaseException:
                left.clear()
                raise

    if len(items) < 2 or threads == 1:
        work()
        return
    # A task a thread: one for each item would take as long as a small item itself.
    pool = _pool(os.getpid(), threads)
    tasks = [pool.submit(work) for _ in range(min(len(items), threads or _usual()))]
    try:
        wait(tasks)
    finally:
        left.clear()  # who is interrupted wants no more
    for task in tasks:
        task.result()


def of_each(read: Callable[[_Item], _Result], images: Sequence[_Item]) -> list[_Result]:
    """Return what ``read`` makes of every image, in order; of several, side by side.

    In threads of its own: ``read`` may wait for those of ``side_by_side``.
    """
    if len(images) < 2:
        return [read(image) for image in images]
    return list(_image_pool(os.getpid()).map(read, images))


@cache
def _pool(process: int, threads: int | None) -> ThreadPoolExecutor:
    """Return the threads that all pyramids share; a forked process needs its own."""
    return ThreadPoolExecutor(threads or _usual(), f"tnet-read-{process}")


@cache
def _image_pool(process: int) -> ThreadPoolExecutor:
    """Return the threads that each read one image."""
    return ThreadPoolExecutor(_usual(), f"tnet-image-{process}")


def _usual() -> int:
    return min(16, 2 * (os.cpu_count() or 1))
