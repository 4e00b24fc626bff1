"""Walks as files that other programs open: one file of this folder a format.

Every format is a function from walks to bytes (or to the files of a folder), and of the same walk
to the same bytes: nothing in them says when they were made.
"""

from importlib import import_module
from typing import Any, NamedTuple

if __name__ != "tnet.adapters.exports":
    raise ImportError("this folder is tnet.adapters.exports")


class Format(NamedTuple):
    """A format that walks are exported to.

    Attributes:
        module: of this folder, which has a function ``export``.
        name: of the file; "{name}" stands for the image's.
        batch: whether one file holds all walks.
        crs: whether the image must say where on the ground it lies.
        heat: whether it shows a heat map.
        image: whether it shows the image.
    """

    module: str
    name: str
    batch: bool = False
    crs: bool = False
    heat: bool = False
    image: bool = False

    @property
    def export(self) -> Any:
        """The function that makes the file's content."""
        return import_module(f"tnet.adapters.exports.{self.module}").export


FORMATS = {
    "qupath": Format("qupath", "{name}.geojson"),
    "geojson": Format("lonlat", "{name}-lonlat.geojson", crs=True),
    "gpkg": Format("gpkg", "{name}.gpkg", crs=True),
    "cog": Format("cog", "{name}-heat.tif", heat=True),
    "omezarr": Format("omezarr", "{name}-heat.ome.zarr", heat=True),
    "png": Format("png", "{name}-heat.png", heat=True, image=True),
    "gif": Format("gif", "{name}.gif", image=True),
    "csv": Format("table", "glimpses.csv", batch=True),
    "parquet": Format("parquet", "glimpses.parquet", batch=True),
}
