"""Links: zarr hierarchies of references into an image that stays where it is."""
