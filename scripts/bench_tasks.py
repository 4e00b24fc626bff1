"""Benchmark tasks as manifests: what their generators wrote, as ``tnet train`` reads it.

python -m tnet.scripts.bench_tasks scenes FOLDER --out scenes.csv
python -m tnet.scripts.bench_tasks slides FOLDER --out slides.csv
python -m tnet.scripts.bench_tasks crops FOLDER --out crops.csv
python -m tnet.scripts.bench_tasks tiles FOLDER SPLITS --out tiles.csv
python -m tnet.scripts.bench_tasks digits FOLDER --task majority --out digits.csv

A manifest lists images where they are; only the digits, which come as lists of pixels, and windows
of slides, to teach a backbone with, are written beside the CSV. The boxes are for measuring where a
walk looked, and for teaching with ``--set supervise``; nothing else reads them.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tnet.scripts.output import say

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

Row = tuple[Path, str, str, str]  # image, label, split, boxes

_PARTS = ("train", "val", "test")
_TILE = 256
_SIDE = 128  # of a window where nothing else is asked for
_TRIES = 50
_TISSUE = 225  # glass is brighter in every band
_LEAST_TISSUE = 0.6  # of a window
_FAR = 300  # pixels of level 0 between the middles of a plain window and an insert
_FAST = 1  # of PNG's levels of compression

app = typer.Typer(help="Benchmark tasks as manifests.", rich_markup_mode=None)
Folder = Annotated[Path, typer.Argument(help="What the generator wrote.")]
Out = Annotated[Path, typer.Option(help="The CSV to write.")]


@app.command()
def scenes(folder: Folder, out: Out) -> None:
    """List scenes with hidden tiles; the boxes are those of the class that counts."""
    rows = []
    for part, row in _labels(folder):
        boxes = []
        for text in filter(None, row["odd_tiles_class_y0x0y1x1"].split(";")):
            name, *corners = text.split()
            if name == row["class"]:
                boxes.append(_box(corners))
        rows.append((folder / part / row["scene"], row["class"], part, ";".join(boxes)))
    _write(out, rows)


@app.command()
def slides(folder: Folder, out: Out) -> None:
    """List slides, tumour or normal; the boxes are those of the needles."""
    names = {"0": "normal", "1": "tumour"}
    rows = []
    for part, row in _labels(folder):
        texts = filter(None, row["needle_boxes_y0x0y1x1"].split(";"))
        boxes = ";".join(_box(text.split()) for text in texts)
        rows.append((folder / part / row["slide"], names[row["label"]], part, boxes))
    _write(out, rows)


@app.command()
def crops(
    folder: Folder,
    out: Out,
    side: Annotated[
        list[int] | None,
        typer.Option(min=16, max=1024, help="Pixels of a window; once more for another scale."),
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="Of each insert, and of plain tissue.")] = 6,
) -> None:
    """Cut windows of 128 px, or others, out of the inserts of slides, and out of plain tissue."""
    import numpy as np
    from PIL import Image

    from tnet.adapters.opening import open_pyramid
    from tnet.geometry import Region

    rows: list[Row] = []
    for number, (part, row) in enumerate(_labels(folder)):
        rng = np.random.default_rng(number)
        with open_pyramid(folder / part / row["slide"]) as slide:
            size = (slide.width, slide.height)
            pixels = slide.read(Region(0, 0, *size), size)
        images = out.parent / f"{out.stem}-images" / part
        images.mkdir(parents=True, exist_ok=True)
        for width in side or [_SIDE]:
            cut = _windows(pixels, row, width, windows, rng)
            for index, (label, x, y) in enumerate(cut):
                path = images / f"{Path(row['slide']).stem}-{width}-{index:02d}.png"
                window = Image.fromarray(pixels[y : y + width, x : x + width])
                window.save(path, compress_level=_FAST)
                rows.append((path, label, part, ""))
    _write(out, rows)


@app.command()
def tiles(
    folder: Folder,
    splits: Annotated[Path, typer.Argument(help="Folder of NAME_train.csv and its kin.")],
    out: Out,
) -> None:
    """List the single tiles that the scenes are made of, by their published split."""
    rows = []
    for part in _PARTS:
        (listed,) = splits.glob(f"eurosat_{part}.csv")
        with listed.open(newline="") as file:
            rows += [(folder / path, label, part, "") for path, label in csv.reader(file)]
    _write(out, [row for row in rows if row[0].exists()])


@app.command()
def digits(
    folder: Folder,
    out: Out,
    task: Annotated[Literal["majority", "max", "top"], typer.Option()] = "majority",
    val: Annotated[float, typer.Option(min=0, max=0.5, help="Share of train to set apart.")] = 0.1,
) -> None:
    """Write megapixel digits as tiled TIFFs with levels, and list them."""
    import numpy as np

    rows: list[Row] = []
    for part in ("train", "test"):
        with np.load(folder / f"{part}.npz") as data:
            values = {name: data[name] for name in ("ptr", "idx", "val", "shape", "boxes", task)}
            values["digits"] = data["digits"]
        images = out.parent / f"{out.stem}-images" / part
        images.mkdir(parents=True, exist_ok=True)
        count = len(values["ptr"]) - 1
        for number in range(count):
            start, end = values["ptr"][number : number + 2]
            picture = np.zeros(int(np.prod(values["shape"])), np.uint8)
            picture[values["idx"][start:end]] = values["val"][start:end]
            path = images / f"{number:05d}.tif"
            _write_tiff(path, picture.reshape(values["shape"]))
            label = int(values[task][number])
            own = values["digits"][number] == label if task != "top" else slice(0, 0)
            boxes = ";".join(_box(map(str, box)) for box in values["boxes"][number][own])
            split = "val" if part == "train" and number >= (1 - val) * count else part
            rows.append((path, str(label), split, boxes))
    _write(out, rows)


def _labels(folder: Path) -> Iterable[tuple[str, dict[str, str]]]:
    """Give every row of the parts' tables, with the part's name."""
    for part in _PARTS:
        table = folder / part / "labels.csv"
        if table.exists():
            with table.open(newline="") as file:
                for row in csv.DictReader(file):
                    yield part, row


def _windows(
    pixels: "NDArray[Any]", row: dict[str, str], side: int, count: int, rng: "Generator"
) -> Iterable[tuple[str, int, int]]:
    """Give what a slide's windows show, and their left and upper edges."""
    import numpy as np

    most = np.array(pixels.shape[1::-1]) - side
    middles = []
    for label, column in (("tumour", "needle_boxes_y0x0y1x1"), ("benign", "decoy_boxes")):
        for text in filter(None, row[column].split(";")):
            top, left, bottom, right = map(int, text.split())
            middle, third = np.array([left + right, top + bottom]) // 2, (bottom - top) // 3
            middles.append(middle)
            for _ in range(count):
                near = middle + rng.integers(-third, third + 1, 2) - side // 2
                x, y = np.clip(near, 0, most).tolist()
                yield label, x, y
    tissue = pixels.min(axis=2) < _TISSUE
    for _ in range(count):
        for _ in range(_TRIES):
            x, y = rng.integers(0, most + 1).tolist()
            away = np.abs(np.array(middles) - (x + side // 2, y + side // 2)).max(axis=1)
            enough = tissue[y : y + side, x : x + side].mean() > _LEAST_TISSUE
            if enough and away.min() > _FAR:
                yield "benign", x, y
                break


def _box(corners: Iterable[str]) -> str:
    """Return "x,y,width,height" of a box that is given as y0, x0, y1, x1."""
    top, left, bottom, right = map(int, corners)
    return f"{left},{top},{right - left},{bottom - top}"


def _write_tiff(path: Path, picture: "NDArray[Any]") -> None:
    """Write a grey picture with halved levels down to one tile."""
    import cv2
    import tifffile

    with tifffile.TiffWriter(path) as tiff:
        first = True
        while True:
            tiff.write(
                picture,
                tile=(_TILE, _TILE),
                compression="deflate",
                photometric="minisblack",
                subfiletype=0 if first else 1,
                metadata=None,
            )
            height, width = picture.shape
            if max(height, width) <= _TILE:
                return
            size = (-(-width // 2), -(-height // 2))
            picture, first = cv2.resize(picture, size, interpolation=cv2.INTER_AREA), False


def _write(out: Path, rows: Sequence[Row]) -> None:
    """Write the manifest; images are named relative to it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "split", "box"])
        for image, label, split, boxes in rows:
            writer.writerow([os.path.relpath(image, out.parent), label, split, boxes])
    say(f"{out}: {len(rows)} images")


if __name__ == "__main__":
    app()
