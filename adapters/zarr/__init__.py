"""Reading zarr: metadata, which arrays are levels, and windows of them from disk or network."""
