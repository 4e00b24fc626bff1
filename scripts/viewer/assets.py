"""The files that the pages are made of, read once; no name from a request becomes a path."""

from dataclasses import dataclass
from pathlib import Path

from tnet.errors import UsageError

_HERE = Path(__file__).parent
_OURS = _HERE / "static"
VENDOR = _HERE / "vendor"
LIBRARY = "openseadragon.min.js"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """A file for the browser, and what kind it is."""

    content: bytes
    media_type: str


def load_assets() -> dict[str, Asset]:
    """Return all files by their names.

    Raises:
        UsageError: if the library is not there that shows images in the browser.
    """
    library = VENDOR / LIBRARY
    if not library.is_file():
        raise UsageError(
            "the viewer lacks OpenSeadragon, which draws its images: run `bash scripts/assets.sh` "
            "in TNet's source folder, and install TNet again if it was not installed with -e; "
            "`tnet report` needs none of it"
        )
    files = [file for file in _OURS.iterdir() if file.suffix in _TYPES]
    return {file.name: Asset(file.read_bytes(), _TYPES[file.suffix]) for file in [*files, library]}
