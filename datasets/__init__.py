"""Labels and batches: manifests, public data sets, augmentation, and synthetic slides."""

if __name__ != "tnet.datasets":
    raise ImportError("this folder is tnet.datasets; for PyPI's 'datasets' start Python with -P")
