"""The made-up slide that the benchmarks read.

python -m tnet.scripts.bench_slide PIXELS DESTINATION
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TILE = 256
_PERIOD = 2048  # pixels after which the picture repeats itself


def slide(folder: Path, size: int) -> Path:
    """Return a made-up slide, written by a process of its own.

    What a process has once taken counts as the peak of those that it starts.
    """
    path = folder / f"slide{size}.tif"
    if not path.exists():
        say(f"writing a slide of {size} x {size} pixels")
        command = [sys.executable, "-m", "tnet.scripts.bench_slide", str(size), str(path)]
        subprocess.run(command, check=True)
    return path


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def write_slide(path: Path, size: int) -> None:
    """Write a made-up slide as a pyramid of JPEG tiles (quality 85, 0.25 µm a pixel).

    Its tissue takes as many bytes as real tissue does; a quarter is glass. It repeats itself, so
    that each tile is compressed once and a slide of any size takes seconds.

    Args:
        path: of the TIFF.
        size: pixels a side.
    """
    import numpy as np
    import tifffile

    tissue = _tissue(_PERIOD)
    half = _PERIOD // 2
    glass = np.random.default_rng(1).normal(240, 1.5, (half, half, 3))
    tissue[half:, half:] = np.clip(glass, 0, 255)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        side = size
        while side >= TILE:
            tiff.write(
                _tiles(tissue, side),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="jpeg",
                photometric="ycbcr",
                subsampling=(2, 2),
                subfiletype=0 if side == size else 1,
                resolution=(40000.0, 40000.0),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
            side //= 2
            tissue = _halved(tissue)


def _tiles(period: Any, side: int) -> Iterator[bytes]:
    """Give the tiles of a level, row by row."""
    import imagecodecs
    import numpy as np

    count = len(period) // TILE
    cut = [
        [period[y : y + TILE, x : x + TILE] for x in range(0, len(period), TILE)]
        for y in range(0, len(period), TILE)
    ]
    made = [
        [bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), 85)) for tile in row]
        for row in cut
    ]
    across = -(-side // TILE)
    for row in range(across):
        for column in range(across):
            yield made[row % count][column % count]


def _halved(period: Any) -> Any:
    """Return what repeats itself one level higher, at least a tile of it."""
    import numpy as np
    from PIL import Image

    half = np.asarray(Image.fromarray(period).reduce(2))
    return half if len(half) >= TILE else np.tile(half, (2, 2, 1))


def _tissue(side: int) -> Any:
    """Return coloured clouds of every size down to grains of two pixels: (side, side, 3) uint8."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    total = np.full((side, side, 3), (175.0, 120.0, 165.0), np.float32)
    for cell, weight in ((256, 27), (64, 23), (16, 23), (6, 21), (3, 12)):
        count = -(-side // cell)
        grey = rng.normal(0, weight, (count, count)).astype(np.float32)
        for band, colour in enumerate((1.0, 0.9, 0.6)):
            coarse = grey + colour * rng.normal(0, weight, grey.shape).astype(np.float32)
            cloud = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
            total[..., band] += np.asarray(cloud)
    return np.clip(total, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    write_slide(Path(sys.argv[2]), int(sys.argv[1]))
