"""How a store is to be made."""

from dataclasses import dataclass

from tnet.adapters.limits import DEFAULT, Limits


@dataclass(frozen=True)
class Wanted:
    """How a store is to be made.

    Attributes:
        codec: "lossless", "jpeg:QUALITY", or "source" for the JPEG tiles of the file as they are.
        mpp: µm per level-0 pixel instead of what the file says.
        associated: whether label and macro pictures, which may name patients, come along.
        overwrite: whether what stands at the destination is replaced.
        limits: of what may be declared and decoded.
        threads: that read and encode; None is one a core.
    """

    codec: str = "lossless"
    mpp: float | None = None
    associated: bool = False
    overwrite: bool = False
    limits: Limits = DEFAULT
    threads: int | None = None
