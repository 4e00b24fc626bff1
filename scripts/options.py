"""What several commands take, said once: their arguments, flags and exit codes."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from tnet.errors import UsageError

GPU_BATCH = 4  # images at a time, where nothing else is said
NO_ROOM = 6  # of the exit codes: the disk is full, or writing is forbidden

Images: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE", help="Files, folders, zarr folders, 'patterns*' or @list.txt."),
]
Destination: TypeAlias = Annotated[
    Path,
    typer.Argument(metavar="DST", help="NAME.zarr for one image, otherwise a folder of them."),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Glimpses: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="8,2,1",
        help="Glimpses of each view, level by level, instead of the model's own.",
    ),
]
Batch: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help=f"Images at a time; {GPU_BATCH} on a GPU, else 1."),
]
Device: TypeAlias = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="Where the model runs.")
]
MaxPixels: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="N", help="Most pixels that an image may claim to have; 1e12."),
]
MaxMemory: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Most memory that an image's pieces may take; 4GiB."),
]
Mpp: TypeAlias = Annotated[
    float | None, typer.Option(help="Size of a pixel in µm, instead of what the file says.")
]
Remote: TypeAlias = Annotated[
    bool, typer.Option("--remote", help="Read addresses: http, https, s3 and gs.")
]


def check_mpp(mpp: float | None) -> None:
    """Make sure that --mpp can be the size of a pixel.

    Raises:
        UsageError: if it cannot.
    """
    if mpp is not None and not 0 < mpp < float("inf"):
        raise UsageError(f"--mpp must be above 0 µm, got {mpp}")


def chosen_device(device: str) -> str:
    """Return where to compute, "cuda" or "cpu", for "auto", "cuda" or "cpu".

    Raises:
        UsageError: if there is no such device.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device here; leave --device out, or say cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def images_at_once(batch: int | None, device: str) -> int:
    """Return how many images are walked over together.

    Args:
        batch: what --batch says.
        device: where the model is, "cpu" or "cuda".
    """
    return batch or (GPU_BATCH if device == "cuda" else 1)
