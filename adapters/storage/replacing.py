"""What may be replaced by a store or a link, when the user says so."""

from pathlib import Path

from tnet.adapters.zarr.opening import is_zarr
from tnet.errors import UsageError


def check_replaceable(source: Path, destination: Path) -> None:
    """Make sure that what stands at a destination may be replaced.

    Raises:
        UsageError: if it is no zarr store, or holds the source.
    """
    if source.resolve().is_relative_to(destination.resolve()):
        raise UsageError(f"{destination} holds the image {source} itself; name another destination")
    if destination.is_symlink() or not is_zarr(destination):
        raise UsageError(
            f"{destination} is no zarr store, and nothing else is replaced; name another "
            "destination, or delete it yourself"
        )
