"""The synthetic slides: the same for a seed, whole, sparse, and telling nothing from afar."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from tnet.datasets.slide_layout import Box, Layout
from tnet.datasets.synthetic import CLASSES, Slide, make_dataset, make_slide, read_truth
from tnet.datasets.texture import GLASS, KINDS, draw_object
from tnet.errors import DataError, UsageError

SIZE = 4096
SEED = 11


def levels(path: Path) -> list[NDArray[np.uint8]]:
    group = zarr.open_group(path, mode="r")
    return [np.asarray(group[name]) for name in sorted(group.array_keys(), key=int)]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Slide]:
    folder = tmp_path_factory.mktemp("slides")
    return {name: make_slide(folder / f"{name}.ome.zarr", name, SEED, SIZE) for name in CLASSES}


@pytest.fixture(scope="module")
def images(slides: dict[str, Slide]) -> dict[str, list[NDArray[np.uint8]]]:
    return {name: levels(slide.path) for name, slide in slides.items()}


def cut(image: NDArray[np.uint8], box: Box, step: int = 1) -> NDArray[np.float64]:
    x, y, width, height = (value // step for value in box)
    return image[:, y : y + height, x : x + width].astype(np.float64)


def test_one_seed_makes_one_slide(
    slides: dict[str, Slide], images: dict[str, list[NDArray[np.uint8]]], tmp_path: Path
) -> None:
    again = make_slide(tmp_path / "again.zarr", "ring", SEED, SIZE)
    assert again.targets == slides["ring"].targets
    assert again.decoys == slides["ring"].decoys
    for one, two in zip(levels(again.path), images["ring"], strict=True):
        np.testing.assert_array_equal(one, two)
    other = make_slide(tmp_path / "other.zarr", "ring", SEED + 1, SIZE)
    assert other.patches != again.patches


def test_every_level_is_the_mean_of_the_finer_one(
    images: dict[str, list[NDArray[np.uint8]]],
) -> None:
    pyramid = images["ring"]
    assert [level.shape for level in pyramid] == [(3, s, s) for s in (4096, 2048, 1024, 512, 256)]
    for fine, coarse in pairwise(pyramid):
        means = fine.reshape(3, len(coarse[0]), 2, -1, 2).mean(axis=(2, 4), dtype=np.float32)
        assert np.abs(means - coarse).max() <= 0.5


def test_a_size_that_is_no_power_of_two(tmp_path: Path) -> None:
    slide = make_slide(tmp_path / "slide.zarr", "normal", 3, 6144)
    pyramid = levels(slide.path)
    assert [level.shape[2] for level in pyramid] == [6144, 3072, 1536, 768, 384, 192]
    for fine, coarse in pairwise(pyramid[1:]):
        means = fine.reshape(3, len(coarse[0]), 2, -1, 2).mean(axis=(2, 4), dtype=np.float32)
        assert np.abs(means - coarse).max() <= 0.5


def test_metadata(slides: dict[str, Slide]) -> None:
    text = (slides["cluster"].path / "zarr.json").read_text()
    attributes = json.loads(text)["attributes"]
    assert attributes["tnet"] == {"background": [GLASS] * 3}
    assert attributes["ome"]["version"] == "0.5"
    (image,) = attributes["ome"]["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    assert image["datasets"][2]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 1.0, 1.0]},
        {"type": "translation", "translation": [0.0, 0.375, 0.375]},
    ]
    assert "cluster" not in text


def test_boxes_lie_in_the_image_and_on_tissue(
    slides: dict[str, Slide], images: dict[str, list[NDArray[np.uint8]]]
) -> None:
    for name, slide in slides.items():
        assert bool(slide.targets) == (name != "normal")
        assert len(slide.targets + slide.decoys) >= 14
        assert len(slide.patches) == 2
        for x, y, width, height in slide.targets + slide.decoys + slide.patches:
            assert 0 <= x < x + width <= SIZE
            assert 0 <= y < y + height <= SIZE
        for box in slide.targets + slide.decoys:
            assert 64 <= box[2] == box[3] < 100
            assert (cut(images[name][0], box) != GLASS).any(axis=0).all()


def test_glass_is_uniform_and_not_stored(
    slides: dict[str, Slide], images: dict[str, list[NDArray[np.uint8]]]
) -> None:
    pixels = images["normal"][0]
    assert (pixels == GLASS).all(axis=0).mean() > 0.4
    assert (pixels[:, [0, 0, -1, -1], [0, -1, 0, -1]] == GLASS).all()
    stored = sum(file.stat().st_size for file in slides["normal"].path.rglob("*"))
    assert stored < 0.35 * pixels.size


@pytest.mark.parametrize("size", [4096, 32768])
def test_objects_stand_apart_in_every_layout(size: int) -> None:
    for seed in range(20):
        layout = Layout("ring", seed, size)
        counts = np.bincount([spot.patch for spot in layout.spots])
        assert len(counts) == len(layout.patches) == (2 if size == 4096 else 6)
        assert 10 <= counts.min() <= counts.max() <= 18
        assert 8 <= len(layout.targets) <= 28
        corners = np.array([spot.box[:2] for spot in layout.spots])
        sides = np.array([spot.box[2] for spot in layout.spots])
        centres = corners + sides[:, None] / 2
        apart = np.hypot(*(centres[:, None] - centres).transpose(2, 0, 1))
        assert (apart + 1000 * np.eye(len(sides)) > 100).all()


def test_shards_of_glass_are_absent(tmp_path: Path) -> None:
    slide = make_slide(tmp_path / "slide.zarr", "ring", 1, 16384)
    shards = [file for file in (slide.path / "0" / "c").rglob("*") if file.is_file()]
    assert 4 <= len(shards) < 45  # of 64
    assert len(slide.patches) == 6


def test_labels_change_the_targets_only(
    slides: dict[str, Slide], images: dict[str, list[NDArray[np.uint8]]]
) -> None:
    normal, ring = slides["normal"], slides["ring"]
    assert set(normal.decoys) == set(ring.decoys + ring.targets)
    changed = (images["normal"][0] != images["ring"][0]).any(axis=0)
    for x, y, width, height in ring.targets:
        assert changed[y : y + height, x : x + width].mean() > 0.5
        changed[y : y + height, x : x + width] = False
    assert not changed.any()


def test_kinds_differ_near_full_resolution_and_not_from_afar() -> None:
    near, far, mean = [], [], []
    for seed in range(24):
        drawn = [draw_object(np.random.default_rng(seed), kind, 80) for kind in KINDS]
        blend = [c * o for c, o in drawn]
        for one, two in ((0, 1), (0, 2), (1, 2)):
            gap = blend[one] - blend[two]
            near.append(gap.reshape(3, 40, 2, 40, 2).mean(axis=(2, 4)).std())
            far.append(gap.reshape(3, 5, 16, 5, 16).mean(axis=(2, 4)).std())
            mean.append(gap.mean())
    assert min(near) > 10
    assert np.mean(far) < 3
    assert abs(np.mean(mean)) < 0.3


@pytest.mark.parametrize("name", ["ring", "cluster"])
def test_the_class_does_not_show_at_a_sixteenth(
    name: str, slides: dict[str, Slide], images: dict[str, list[NDArray[np.uint8]]]
) -> None:
    for box in slides[name].patches:
        ours = cut(images[name][4], box, 16)
        normal = cut(images["normal"][4], box, 16)
        spread = normal.std(axis=(1, 2))
        assert np.abs(ours - normal).max() < 25
        assert (np.abs(ours.mean(axis=(1, 2)) - normal.mean(axis=(1, 2))) < 0.02 * spread).all()


def test_a_data_set_is_balanced_and_resumes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    slides = make_dataset(tmp_path, 3, 5, SIZE, 1, lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert sorted(slide.label for slide in slides) == sorted(CLASSES)
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["image"], r["label"]) for r in rows] == [(s.path.name, s.label) for s in slides]
    times = [slide.path.stat().st_mtime_ns for slide in slides]
    more = make_dataset(tmp_path, 4, 5, SIZE, 2)
    assert more[:3] == slides == [read_truth(slide.path) for slide in slides]
    assert [slide.path.stat().st_mtime_ns for slide in more[:3]] == times
    with pytest.raises(DataError, match="another seed"):
        make_dataset(tmp_path, 3, 6, SIZE)


def test_an_interrupted_slide_is_made_again(slides: dict[str, Slide], tmp_path: Path) -> None:
    partial = tmp_path / "slide.zarr.partial"
    (partial / "0").mkdir(parents=True)
    (partial / "0" / "zarr.json").write_text("half a fi")
    slide = make_slide(tmp_path / "slide.zarr", "normal", SEED, SIZE)
    assert not partial.exists()
    assert slide.decoys == slides["normal"].decoys


def test_mistakes_are_named(slides: dict[str, Slide], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="normal, ring, cluster"):
        make_slide(tmp_path / "slide.zarr", "tumour", 1)
    with pytest.raises(UsageError, match="multiple of 2048"):
        make_slide(tmp_path / "slide.zarr", "ring", 1, 5000)
    with pytest.raises(DataError, match="exists already"):
        make_slide(slides["ring"].path, "ring", SEED, SIZE)
    with pytest.raises(DataError, match="beside it"):
        read_truth(tmp_path / "none.zarr")
