"""How a store is to be made."""

from dataclasses import dataclass
from typing import Literal

from tnet.adapters.limits import DEFAULT, Limits

Levels = Literal["own", "mean"]
OWN: Levels = "own"
MEAN: Levels = "mean"


@dataclass(frozen=True)
class Wanted:
    """How a store is to be made.

    Attributes:
        codec: "lossless", "jpeg:QUALITY", or "source" for the JPEG tiles of the file as they are.
        levels: "own" keeps the coarser levels that the file has and makes those that it lacks;
            "mean" makes them all. Of the codec "source" they are the file's own.
        mpp: µm per level-0 pixel instead of what the file says.
        associated: whether label and macro pictures, which may name patients, come along.
        overwrite: whether what stands at the destination is replaced.
        limits: of what may be declared and decoded.
        threads: that read and encode; None is one a core.
    """

    codec: str = "lossless"
    levels: Levels = OWN
    mpp: float | None = None
    associated: bool = False
    overwrite: bool = False
    limits: Limits = DEFAULT
    threads: int | None = None
