"""TNet: classify gigapixel images by looking at almost none of their pixels.

The public names are loaded when first used, so that ``tnet --help`` and the readers in
``tnet.adapters`` start without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tnet.bundle import load as load
    from tnet.bundle import save as save
    from tnet.geometry import Grid as Grid
    from tnet.geometry import Region as Region
    from tnet.model import TNet as TNet
    from tnet.plan import Plan as Plan
    from tnet.plan import Step as Step
    from tnet.pyramid import Pyramid as Pyramid
    from tnet.record import Glimpse as Glimpse
    from tnet.record import Walk as Walk
    from tnet.traversal import walk as walk

_HOME = {
    "Glimpse": "tnet.record",
    "Grid": "tnet.geometry",
    "Plan": "tnet.plan",
    "Pyramid": "tnet.pyramid",
    "Region": "tnet.geometry",
    "Step": "tnet.plan",
    "TNet": "tnet.model",
    "Walk": "tnet.record",
    "load": "tnet.bundle",
    "save": "tnet.bundle",
    "walk": "tnet.traversal",
}

__all__ = [
    "Glimpse",
    "Grid",
    "Plan",
    "Pyramid",
    "Region",
    "Step",
    "TNet",
    "Walk",
    "load",
    "save",
    "walk",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tnet' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
