"""What lies in a store's folder, without following any link."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tnet.adapters.storage.findings import Fault
from tnet.adapters.storage.seal import SEAL, Seal

_METADATA = "zarr.json"
_LINKED = "has become a link to somewhere else"


@dataclass(frozen=True)
class Listing:
    """Paths inside a store, with "/" between.

    Attributes:
        files: and their bytes.
        folders: of the store, itself left out.
        others: links, whose targets are not listed, and what is neither file nor folder.
    """

    files: dict[str, int]
    folders: set[str]
    others: set[str]


def listed(store: Path) -> Listing:
    """Return what lies in a store.

    Raises:
        OSError: if it cannot be read.
    """
    found = Listing({}, set(), set())
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(store / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}".removeprefix("/")
                if entry.is_dir(follow_symlinks=False):
                    found.folders.add(name)
                    waiting.append(name)
                elif entry.is_file(follow_symlinks=False):
                    found.files[name] = entry.stat().st_size
                else:
                    found.others.add(name)
    return found


def strangers(listing: Listing, seal: Seal) -> tuple[list[Fault], list[str]]:
    """Return what a seal does not know: faults in our own folders, and notes on what is beside.

    A link in the place of something that the seal knows is a fault as well.
    """
    known = {*seal.files, SEAL}
    folders = {str(parent) for name in known for parent in PurePosixPath(name).parents} - {"."}
    own = array_folders(seal)
    faults = [Fault(name, _LINKED) for name in sorted(listing.others & folders)]
    unknown = {*listing.files, *listing.folders, *listing.others} - known - folders
    notes = []
    for name in sorted(unknown):
        parents = [str(parent) for parent in PurePosixPath(name).parents]
        if any(parent in unknown for parent in parents):
            continue  # told of with its folder
        if any(parent in own for parent in parents):
            faults.append(Fault(name, "does not belong to the store", extra=True))
        else:
            notes.append(f"{name} is not of the seal, so nobody vouches for it")
    return faults, notes


def names_others(seal: Seal) -> bool:
    """Say whether a seal names files outside of its store."""
    paths = map(PurePosixPath, seal.files)
    return any(path.is_absolute() or ".." in path.parts for path in paths)


def array_folders(seal: Seal) -> set[str]:
    """Return the folders of a sealed store in which nothing else may lie."""
    owners = {owner for name in seal.files if (owner := owner_of(name, seal)) != name}
    return {*filter(None, owners), str(PurePosixPath(SEAL).parent)}


def owner_of(name: str, seal: Seal) -> str:
    """Return the folder of the array that a chunk's file belongs to; of metadata, its own name."""
    path = PurePosixPath(name)
    if path.name == _METADATA:
        return name
    owners: Sequence[str] = [str(p) for p in path.parents if f"{p}/{_METADATA}" in seal.files]
    return owners[0] if owners else ""
