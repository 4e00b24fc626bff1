"""Benchmark tasks as manifests: what stands in them, and what windows of slides show."""

import csv
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from tnet.scripts.bench_tasks import crops, slides

SIDE = 2048
GLASS, TISSUE, NEEDLE, DECOY = 240, 180, 60, 120
NEEDLES = ("300 200 560 460", "1500 1500 1700 1700")  # y0 x0 y1 x1
DECOYS = ("1400 300 1600 500",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return slides as the generator lays them out: one of tumour, one without."""
    for part in ("train", "val"):
        rows = []
        for number, (needles, decoys) in enumerate([(NEEDLES, DECOYS), ((), NEEDLES)]):
            pixels = np.full((SIDE, SIDE, 3), TISSUE, np.uint8)
            pixels[:, : SIDE // 10] = GLASS
            for boxes, value in ((needles, NEEDLE), (decoys, DECOY)):
                for top, left, bottom, right in (map(int, box.split()) for box in boxes):
                    pixels[top:bottom, left:right] = value
            path = tmp_path / part / f"{number:04d}.tif"
            path.parent.mkdir(exist_ok=True)
            tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
            rows.append([path.name, len(needles) and 1, ";".join(needles), ";".join(decoys)])
        with (tmp_path / part / "labels.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["slide", "label", "needle_boxes_y0x0y1x1", "decoy_boxes"])
            writer.writerows(rows)
    return tmp_path


def test_slides_are_listed_with_the_boxes_of_their_needles(folder: Path) -> None:
    slides(folder, folder / "slides.csv")
    rows = _rows(folder / "slides.csv")
    assert [(row["image"], row["label"], row["split"]) for row in rows] == [
        ("train/0000.tif", "tumour", "train"),
        ("train/0001.tif", "normal", "train"),
        ("val/0000.tif", "tumour", "val"),
        ("val/0001.tif", "normal", "val"),
    ]
    assert rows[0]["box"] == "200,300,260,260;1500,1500,200,200"
    assert rows[1]["box"] == ""


def test_windows_show_what_their_label_says(folder: Path) -> None:
    crops(folder, folder / "cut" / "crops.csv")
    rows = _rows(folder / "cut" / "crops.csv")
    # Six windows of every insert, and of tissue from every slide.
    counts = Counter((row["label"], row["split"]) for row in rows)
    assert counts[("tumour", "train")] == counts[("tumour", "val")] == 12
    assert counts[("benign", "train")] == counts[("benign", "val")] == 30
    for row in rows:
        shown = cv2.imread(str(folder / "cut" / row["image"]))
        assert shown is not None
        assert shown.shape == (128, 128, 3)
        assert (row["label"] == "tumour") == bool((shown == NEEDLE).any())
        assert (shown < GLASS).mean() > 0.5


def test_the_same_slides_give_the_same_windows(folder: Path) -> None:
    for name in ("one", "two"):
        crops(folder, folder / name / "crops.csv")
    for row in _rows(folder / "one" / "crops.csv"):
        both = [(folder / name / row["image"]).read_bytes() for name in ("one", "two")]
        assert both[0] == both[1]


def test_windows_of_two_scales_lie_side_by_side(folder: Path) -> None:
    crops(folder, folder / "cut" / "crops.csv", side=[128, 256], windows=2)
    rows = _rows(folder / "cut" / "crops.csv")
    sides: Counter[int] = Counter()
    for row in rows:
        shown = cv2.imread(str(folder / "cut" / row["image"]))
        assert shown is not None
        assert shown.shape[0] == shown.shape[1]
        assert (row["label"] == "tumour") == bool((shown == NEEDLE).any())
        sides[shown.shape[0]] += 1
    # Two of each of ten inserts, and of the plain tissue of each of four slides.
    assert sides == {128: 2 * 14, 256: 2 * 14}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
