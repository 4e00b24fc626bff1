"""A pyramid that keeps what is read of it, so that asking twice reads once."""

from collections.abc import Hashable, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.views import View, facts_of
from tnet.geometry import Region
from tnet.pyramid import How, Pyramid

Pixels = NDArray[Any]


class Remembering(View):
    """An image whose pixels stay in memory once they have been read, region by region.

    What a walk was given can then be had without reading it again; see ``tnet.replaying``.

    Args:
        inner: the image; closing this one closes it.
    """

    def __init__(self, inner: Pyramid) -> None:
        super().__init__(inner, facts_of(inner))
        self._kept: dict[Hashable, Pixels] = {}

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> Pixels:
        """Return ``region`` resampled to ``size``."""
        key = _key(region, size, how)
        if key not in self._kept:
            self._kept[key] = self.inner.read(region, size, **how)
        return self._kept[key].copy()

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> Pixels:
        """Return all ``regions``, in order: (n, height, width, bands)."""
        keys = [_key(region, size, how) for region in regions]
        new = {key: r for key, r in zip(keys, regions, strict=True) if key not in self._kept}
        if new or not keys:
            read = self.inner.read_many(list(new.values()), size, **how)
            self._kept.update(zip(new, read, strict=True))
            if len(new) == len(keys):
                return read.copy()
        return np.stack([self._kept[key] for key in keys])


def _key(region: Region, size: tuple[int, int], how: How) -> Hashable:
    """Return what tells a read from every other one of the same image."""
    said = sorted(how.items())
    return region, size, tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in said)
