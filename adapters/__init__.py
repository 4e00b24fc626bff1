"""Foreign formats."""
if __name__ != "tnet.adapters":
    raise ImportError("x")
