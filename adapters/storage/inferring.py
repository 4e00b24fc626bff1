"""How a store was made, where its seal can no longer say so."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tnet.adapters.limits import DEFAULT
from tnet.adapters.storage.codecs import LOSSLESS, SOURCE
from tnet.adapters.storage.conversion import version_of
from tnet.adapters.storage.seal import SEAL
from tnet.adapters.storage.wanted import OWN
from tnet.adapters.zarr.metadata import Array, Group, node_at
from tnet.adapters.zarr.sources import Folder
from tnet.errors import DataError

_JPEG = "imagecodecs_jpeg"
_MICRON = "µm"


def settings_of(store: Path, spacing: tuple[float, float] | None) -> dict[str, Any]:
    """Return the settings of a store: what its seal says where its arrays agree, else what they do.

    Args:
        store: its folder.
        spacing: size of a pixel as the source has it.

    Raises:
        DataError: if no array of it can be read.
    """
    codec = _codec(store)
    found: dict[str, Any] = {
        "codec": codec,
        "associated": (store / "associated").is_dir(),
        "version": version_of(codec),
    }
    mpp = _mpp(store, spacing)
    if mpp is not None:
        found["mpp"] = mpp
    if codec != SOURCE and _keeps_levels(store):
        found["levels"] = OWN
    said = _said(store)
    return dict(said) if _agree(said, found, spacing) else found


def _codec(store: Path) -> str:
    """Return the codec that the finest level with sound metadata is in."""
    source = Folder(store, checked=False)
    for key in sorted((p.name for p in store.iterdir() if p.name.isdecimal()), key=int):
        try:
            node = node_at(source, key, DEFAULT)
        except DataError:
            continue
        if isinstance(node, Array):
            jpeg = [c for c in node.codecs or () if c["name"] == _JPEG]
            if not jpeg:
                return LOSSLESS
            quality = jpeg[0].get("configuration", {}).get("level")
            return SOURCE if quality is None else f"jpeg:{quality}"
    raise DataError(
        f"{store} has neither a seal nor metadata that can be read, so nobody can tell how it was "
        "made; delete it and convert the image again"
    )


def _keeps_levels(store: Path) -> bool:
    """Say whether the source's own coarser levels were kept: then they are not called means."""
    attributes = _attributes(store)
    ome = attributes.get("ome")
    listed = ome.get("multiscales") if isinstance(ome, Mapping) else None
    first = listed[0] if isinstance(listed, list) and listed else None
    return isinstance(first, Mapping) and "type" not in first


def _attributes(store: Path) -> Mapping[str, Any]:
    """Return the attributes of a store's group, none where they cannot be read."""
    try:
        node = node_at(Folder(store, checked=False), "", DEFAULT)
    except DataError:
        return {}
    return node.attributes if isinstance(node, Group) else {}


def _mpp(store: Path, spacing: tuple[float, float] | None) -> float | None:
    """Return the µm per pixel that somebody has given, None where it is what the source says."""
    own = _attributes(store).get("tnet")
    if not isinstance(own, Mapping) or own.get("unit") != _MICRON:
        return None
    size = own.get("spacing")
    if not isinstance(size, list) or len(size) != 2 or size[0] != size[1]:
        return None
    return None if spacing is not None and list(spacing) == size else float(size[0])


def _said(store: Path) -> Mapping[str, Any]:
    """Return what a damaged seal says of the settings, nothing where it cannot be read."""
    try:
        settings = json.loads((store / SEAL).read_bytes())["attributes"]["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return settings if isinstance(settings, Mapping) else {}


def _agree(
    said: Mapping[str, Any], found: Mapping[str, Any], spacing: tuple[float, float] | None
) -> bool:
    """Say whether a damaged seal's settings are those that the arrays show.

    Two of them leave no trace: a size that was given and is the source's own, and pictures asked
    for of a source that has none.
    """
    if set(said) - {"mpp", "levels"} != {"codec", "associated", "version"}:
        return False
    own = spacing[0] if spacing else None
    same = all(said.get(name) == found.get(name) for name in ("codec", "version", "levels"))
    pictures = said["associated"] in (True, found["associated"])
    return same and pictures and said.get("mpp", own) == found.get("mpp", own)
