"""Writing pyramids to zarr so that none is ever half-written, and telling when one was hurt."""
