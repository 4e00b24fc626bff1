"""Foreign formats: pixels come in as pyramids, results go out as files that people open.

``open_pyramid`` opens anything that is read here. Libraries of the formats are imported when a
file needs them.
"""

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

__all__ = [
    "READERS",
    "SUFFIXES",
    "Limits",
    "crop",
    "describe",
    "is_image",
    "is_url",
    "open_pyramid",
    "rescale",
    "select_bands",
    "with_spacing",
]
