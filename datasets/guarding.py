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

    Args:
        inner: the image.
        tell: called with every error.
    """

    def __init__(self, inner: Pyramid, tell: Callable[[Exception], None]) -> None:
        super().__init__(inner, facts_of(inner))
        self._tell = tell

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> Pixels:
        """Return ``region`` resampled to ``size``."""
        return self.read_many([region], size, **how)[0]

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> Pixels:
        """Return all ``regions``, in order: (n, height, width, bands)."""
        try:
            return self.inner.read_many(regions, size, **how)
        except Exception as error:  # decoders of damaged files fail in many ways
            self._tell(error)
        shape = (len(regions), size[1], size[0], self.bands)
        wanted = how.get("dtype")
        blank = np.empty(shape, self.dtype if wanted is None else wanted)
        blank[...] = self.background
        return blank
