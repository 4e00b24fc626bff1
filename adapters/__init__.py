"""Foreign formats: pixels come in as pyramids, results go out as files that people open.

``open_pyramid`` opens anything that is read here; ``convert``, ``link`` and ``verify``
make and check zarr stores. Libraries of the formats are imported when a file needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "tnet.adapters":
    raise ImportError("this folder is tnet.adapters; start Python with -P to import another one")

from tnet.adapters.limits import Limits as Limits
from tnet.adapters.opening import READERS as READERS
from tnet.adapters.opening import SUFFIXES as SUFFIXES
from tnet.adapters.opening import describe as describe
from tnet.adapters.opening import is_image as is_image
from tnet.adapters.opening import is_url as is_url
from tnet.adapters.opening import open_pyramid as open_pyramid
from tnet.adapters.views import crop as crop
from tnet.adapters.views import rescale as rescale
from tnet.adapters.views import select_bands as select_bands
from tnet.adapters.views import with_spacing as with_spacing

if TYPE_CHECKING:
    from tnet.adapters.links.making import link as link
    from tnet.adapters.storage.conversion import convert as convert
    from tnet.adapters.storage.verify import verify as verify
    from tnet.adapters.storage.wanted import Wanted as Wanted

_LATER = {
    "Wanted": "tnet.adapters.storage.wanted",
    "convert": "tnet.adapters.storage.conversion",
    "link": "tnet.adapters.links.making",
    "verify": "tnet.adapters.storage.verify",
}

__all__ = [
    "READERS",
    "SUFFIXES",
    "Limits",
    "Wanted",
    "convert",
    "crop",
    "describe",
    "is_image",
    "is_url",
    "link",
    "open_pyramid",
    "rescale",
    "select_bands",
    "verify",
    "with_spacing",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'tnet.adapters' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
