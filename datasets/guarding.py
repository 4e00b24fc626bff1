"""An image that breaks while it is read must not end a training."""

from collections.abc import Callable, Sequence
from typing import Unpack

import numpy as np

from tnet.adapters.views import Pixels, View, facts_of
from tnet.geometry import Region
from tnet.pyramid import How, Pyramid


class Guarded(View):
    """An image that never fails to be read: what cannot be read is background, and is told of.

    The walk reads many images at once, and one that breaks half-way must not end the training.
    A read that fails is tried once more with the file opened anew: it may have been closed
    meanwhile, or the network may have been away.

    Args:
        inner: the image.
        reopen: opens it anew.
        tell: called with the error that was final; from then on all is background.
    """

    def __init__(
        self,
        inner: Pyramid,
        reopen: Callable[[], Pyramid],
        tell: Callable[[Exception], None],
    ) -> None:
        super().__init__(inner, facts_of(inner))
        self._reopen, self._tell = reopen, tell
        self._broken = False

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> Pixels:
        """Return ``region`` resampled to ``size``."""
        return self.read_many([region], size, **how)[0]

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> Pixels:
        """Return all ``regions``, in order: (n, height, width, bands)."""
        try:
            if not self._broken:
                return self._twice(regions, size, how)
        except Exception as error:  # decoders of damaged files fail in many ways
            self._broken = True
            self._tell(error)
        shape = (len(regions), size[1], size[0], self.bands)
        wanted = how.get("dtype")
        blank = np.empty(shape, self.dtype if wanted is None else wanted)
        blank[...] = self.background
        return blank

    def _twice(self, regions: Sequence[Region], size: tuple[int, int], how: How) -> Pixels:
        try:
            return self.inner.read_many(regions, size, **how)
        except Exception:
            with self._reopen() as again:
                return again.read_many(regions, size, **how)
