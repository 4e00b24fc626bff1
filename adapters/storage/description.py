"""What a store says of its image: OME-Zarr 0.5, and beside it where a scene lies on the ground."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tnet.adapters.extras import ICC_PROFILE, Channel
from tnet.adapters.georeference import GRID_MAPPING, scaled, zarr_attributes
from tnet.adapters.storage.codecs import with_checksum
from tnet.adapters.storage.layout import Layout, fill_value, multiscales
from tnet.adapters.storage.staging import Stage
from tnet.pyramid import Pyramid

GROUP = "zarr.json"

_GREY = "FFFFFF"
_SHOWN = (1, 99)  # percentiles of the coarsest level that a viewer shows as black and white


def group(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the zarr.json of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def image_attributes(
    name: str,
    layouts: Sequence[Layout],
    pyramid: Pyramid,
    channels: Sequence[Channel],
    coarsest: NDArray[Any],
    means: bool = True,
) -> dict[str, Any]:
    """Return the attributes of an image's group.

    Args:
        name: of the image.
        layouts: its levels, finest first.
        pyramid: where it comes from.
        channels: names and colours of its bands; numbered where there are none.
        coarsest: pixels of the coarsest level, (bands, height, width).
        means: whether every level is the mean of the one above.
    """
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [multiscales(name, list(layouts), pyramid.spacing, pyramid.unit, means)],
        "omero": {"channels": _channels(channels, pyramid, coarsest)},
    }
    placed, _ = zarr_attributes(pyramid.crs, pyramid.transform, (pyramid.width, pyramid.height))
    nodata = {} if pyramid.nodata is None else {"nodata": fill_value(pyramid.nodata, pyramid.dtype)}
    own = {
        "background": [fill_value(v, np.dtype(np.float64)) for v in pyramid.background],
        "spacing": None if pyramid.spacing is None else list(pyramid.spacing),
        "unit": pyramid.unit,
    }
    return {"ome": ome, **placed, **nodata, "tnet": own}


def level_attributes(pyramid: Pyramid, layout: Layout) -> dict[str, Any]:
    """Return the attributes of a level's array: where it lies on the ground."""
    _, height, width = layout.shape
    transform = pyramid.transform and scaled(pyramid.transform, *layout.scale)
    attributes, reference = zarr_attributes(pyramid.crs, transform, (width, height))
    if reference is not None and layout.scale == (1.0, 1.0):  # it holds the transform of level 0
        attributes["grid_mapping"] = GRID_MAPPING
    return attributes


def write_beside(stage: Stage, pyramid: Pyramid, icc: bytes | None) -> None:
    """Write the arrays that stand beside the levels: the coordinate system, the colour profile."""
    _, reference = zarr_attributes(pyramid.crs, pyramid.transform, (pyramid.width, pyramid.height))
    if reference is not None:
        _array(stage, GRID_MAPPING, np.zeros((), np.int64), reference)
    if icc:
        _array(stage, ICC_PROFILE, np.frombuffer(icc, np.uint8), {})


def _array(stage: Stage, name: str, values: NDArray[Any], attributes: dict[str, Any]) -> None:
    """Write a small array as one chunk."""
    if not stage.holds(f"{name}/{GROUP}"):
        content = values.astype(values.dtype.newbyteorder("<")).tobytes()
        stage.write("/".join([name, "c", *"0" * values.ndim]), [with_checksum(content)])
        wide = {"configuration": {"endian": "little"}} if values.dtype.itemsize > 1 else {}
        metadata = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(values.shape),
            "data_type": values.dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": list(values.shape)},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "bytes", **wide}, {"name": "crc32c"}],
            "attributes": attributes,
            "storage_transformers": [],
        }
        stage.write_json(f"{name}/{GROUP}", metadata)


def _channels(
    channels: Sequence[Channel], pyramid: Pyramid, coarsest: NDArray[Any]
) -> list[dict[str, Any]]:
    listed = []
    for band in range(pyramid.bands):
        known = channels[band] if len(channels) == pyramid.bands else None
        low, high, start, end = _window(coarsest[band], pyramid)
        listed.append(
            {
                "label": known.name if known else str(band + 1),
                "color": known.colour if known and known.colour else _GREY,
                "window": {"min": low, "max": high, "start": start, "end": end},
                "active": band < 3,
            }
        )
    return listed


def _window(values: NDArray[Any], pyramid: Pyramid) -> tuple[float, float, float, float]:
    """Return the least and the greatest value that can be, and those that a viewer should show."""
    if pyramid.dtype == np.uint8:
        return 0, 255, 0, 255
    seen = values[np.isfinite(values)].astype(np.float64)
    if pyramid.nodata is not None:
        seen = seen[seen != pyramid.nodata]
    start, end = (float(v) for v in np.percentile(seen, _SHOWN)) if len(seen) else (0.0, 1.0)
    if pyramid.dtype.kind == "f":
        low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
        return low, high, start, end
    limits = np.iinfo(pyramid.dtype)
    return float(limits.min), float(limits.max), start, end
