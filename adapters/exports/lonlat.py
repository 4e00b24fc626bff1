"""GeoJSON on the globe: longitude and latitude of WGS 84, as RFC 7946 wants it."""

from tnet.adapters.exports.features import collection, feature
from tnet.adapters.exports.places import globe_ring, to_globe
from tnet.adapters.exports.rows import rows
from tnet.record import Walk


def export(walk: Walk) -> bytes:
    """Return a walk as GeoJSON in degrees, with the columns of the table as properties.

    Raises:
        DataError: if the image does not say where on the ground it lies.
    """
    transformer = to_globe(walk)
    found = []
    for glimpse, row in zip(walk.glimpses, rows(walk), strict=True):
        corners = globe_ring(walk, glimpse.region, transformer)
        found.append(feature(corners, row, str(row["glimpse"])))
    return collection(found)
