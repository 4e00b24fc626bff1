"""Batches of labelled images: their order, their draws, and what happens when one breaks."""

import gc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from command_line import picture, write_png

from tnet.adapters import open_pyramid
from tnet.datasets import loading
from tnet.datasets.augment import Augment
from tnet.datasets.guarding import Guarded
from tnet.datasets.loading import Images, loader
from tnet.datasets.manifest import Manifest, read_manifest
from tnet.errors import DataError
from tnet.geometry import Region
from tnet.model import Input
from tnet.pyramid import Pyramid
from tnet.settings import Sample

SIZE = (60, 40)
WHOLE = Region(0, 0, *SIZE)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Twelve images, three of the rarer class."""
    return made(tmp_path, 12)


def made(folder: Path, count: int, more: str = "", cells: str = "", **options: Any) -> Manifest:
    lines = [f"image,label{more}"]
    for row in range(count):
        write_png(folder / f"{row}.png", picture(*SIZE, seed=row))
        lines.append(f"{row}.png,{'ab'[row % 4 == 1]}{cells}")
    (folder / "data.csv").write_text("\n".join(lines), encoding="utf-8")
    return read_manifest(folder / "data.csv", **options)


def images_of(manifest: Manifest, **options: Any) -> Images:
    options.setdefault("expects", Input())
    return Images(manifest.entries, manifest, **options)


def all_of(images: Images) -> list[Sample]:
    return [images[index] for index in range(len(images))]


def order(images: Images, epoch: int, **options: Any) -> list[list[str]]:
    images.epoch = epoch
    options = {"batch": 5, "shuffle": True, "seed": 3} | options
    return [[Path(s.pyramid.name).stem for s in batch] for batch in loader(images, **options)]


def test_samples_are_the_rows(tmp_path: Path) -> None:
    cells = ",p,0.5,0.25,1 2 3 4"
    manifest = made(tmp_path, 4, ",group,weight,mpp,box", cells)
    samples = all_of(images_of(manifest, seed=5))
    assert [sample.label for sample in samples] == [0, 1, 0, 0]
    assert len({sample.seed for sample in samples}) == 4
    first = samples[0]
    assert (first.weight, first.boxes, first.pyramid.mpp) == (
        0.5,
        (Region(1, 2, 3, 4),),
        (0.25,) * 2,
    )
    np.testing.assert_array_equal(first.pyramid.read(WHOLE, SIZE), picture(*SIZE))


def test_the_size_of_a_pixel_is_that_of_the_row_first(tmp_path: Path) -> None:
    manifest = made(tmp_path, 4, ",mpp")
    entries = (replace(manifest.entries[0], mpp=0.5), *manifest.entries[1:])
    images = images_of(replace(manifest, entries=entries), mpp=0.2)
    assert [sample.pyramid.mpp for sample in all_of(images)] == [(0.5, 0.5), *[(0.2, 0.2)] * 3]


def test_several_labels_are_a_0_or_1_of_every_class(tmp_path: Path) -> None:
    manifest = made(tmp_path, 4, separator="|")
    assert [sample.label for sample in all_of(images_of(manifest))] == [
        (1, 0),
        (0, 1),
        (1, 0),
        (1, 0),
    ]


def test_masks_become_boxes(tmp_path: Path) -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2] = 9
    write_png(tmp_path / "mask.png", mask)
    manifest = made(tmp_path, 2, ",mask,box", ",mask.png,0 0 5 5")
    images = images_of(manifest)
    assert images[0].boxes == (Region(0, 0, 5, 5), Region(20, 10, 10, 10))
    images = images_of(manifest, augment=Augment(flips=True))
    found = set()
    for images.epoch in range(12):
        found.add(images[0].boxes[1])
    assert found == {Region(x, y, 10, 10) for x in (20, 30) for y in (10, 20)}


def test_the_order_follows_from_seed_and_epoch_alone(manifest: Manifest) -> None:
    images = images_of(manifest)
    first = order(images, 0)
    assert [len(batch) for batch in first] == [5, 5, 2]
    assert sorted(name for batch in first for name in batch) == sorted(map(str, range(12)))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert order(images_of(manifest), 0) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert order(images, 1) != first
    assert order(images, 0, seed=4) != first
    assert order(images, 0) == first
    plain = order(images, 3, shuffle=False)
    assert [name for batch in plain for name in batch] == [str(i) for i in range(12)]


def test_balanced_classes_come_equally_often(manifest: Manifest) -> None:
    images = images_of(manifest)
    seen: Counter[bool] = Counter()
    for epoch in range(60):
        names = [name for batch in order(images, epoch, balanced=True) for name in batch]
        assert len(names) == 12
        seen.update(int(name) % 4 == 1 for name in names)
    assert seen[True] / seen.total() == pytest.approx(0.5, abs=0.05)


def test_draws_change_from_epoch_to_epoch_and_come_back(manifest: Manifest) -> None:
    images = images_of(manifest, augment=Augment.named("strong"), seed=1)

    def seen(epoch: int, index: int = 0) -> bytes:
        images.epoch = epoch
        pyramid = images[index].pyramid
        return pyramid.read(Region(0, 0, pyramid.width, pyramid.height), (20, 20)).tobytes()

    first = [seen(epoch) for epoch in range(5)]
    assert len(set(first)) == 5
    assert [seen(epoch) for epoch in reversed(range(5))] == first[::-1]
    images.close()
    assert seen(2) == first[2]
    assert len({images[index].seed for index in range(12)}) == 12


def test_an_image_that_is_gone_is_replaced_by_one_of_its_class(manifest: Manifest) -> None:
    manifest.entries[1].image.write_text("no image")
    images = images_of(manifest)
    names = set()
    for images.epoch in range(20):
        sample = images[1]
        assert sample.label == 1
        names.add(Path(sample.pyramid.name).stem)
    assert names == {"5", "9"}
    assert list(images.failed) == [1]
    assert "1.png" in images.failed[1]


def test_an_image_that_breaks_while_it_is_read_is_blank_once_and_then_left_out(
    manifest: Manifest,
) -> None:
    images = images_of(manifest, augment=Augment(flips=True))
    sample = images[1]
    path = manifest.entries[1].image
    path.write_bytes(path.read_bytes()[:200])
    assert images.failed == {}
    assert (sample.pyramid.read(WHOLE, SIZE) == 255).all()
    assert (sample.pyramid.read_many([WHOLE] * 2, (7, 5), dtype=np.float32) == 255).all()
    assert list(images.failed) == [1]
    assert Path(images[1].pyramid.name).stem in {"5", "9"}


def test_a_read_that_fails_is_tried_once_more(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: Any, **options: Any) -> None:
        raise OSError("the network is away")

    images = images_of(manifest)
    guarded = images[1].pyramid
    assert isinstance(guarded, Guarded)
    monkeypatch.setattr(guarded.inner, "read_many", away)
    np.testing.assert_array_equal(images[1].pyramid.read(WHOLE, SIZE), picture(*SIZE, seed=1))
    assert images.failed == {}
    monkeypatch.setattr(loading, "open_pyramid", away)
    assert (images[1].pyramid.read(WHOLE, SIZE) == 255).all()
    assert images.failed == {1: "the network is away"}


def test_images_that_failed_before_stay_out(manifest: Manifest) -> None:
    images = images_of(manifest)
    images.failed |= {0: "broken", 2: "broken too"}
    assert Path(images[0].pyramid.name).stem not in {"0", "2"}


def test_images_of_other_bands_are_left_out(manifest: Manifest) -> None:
    write_png(manifest.entries[0].image, picture(*SIZE, bands=1))
    images = images_of(manifest)
    assert Path(images[0].pyramid.name).stem != "0"
    assert "has 1 band of uint8; the model takes 3 of uint8" in images.failed[0]


def test_nothing_left_is_an_error(manifest: Manifest) -> None:
    for entry in manifest.entries:
        entry.image.unlink()
    with pytest.raises(DataError, match="none of the 12 images can be read any more"):
        images_of(manifest)[0]


def test_few_images_stay_open_and_a_batch_always_does(tmp_path: Path) -> None:
    lines = ["image,label"]
    for row in range(8):
        pixels = picture(64, 64, seed=row)
        tifffile.imwrite(tmp_path / f"{row}.tif", pixels, photometric="rgb", tile=(32, 32))
        lines.append(f"{row}.tif,{'ab'[row % 2]}")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    images = images_of(read_manifest(tmp_path / "data.csv"), keep_open=2)
    early = images[7].pyramid
    for index in range(7):
        assert images[index].pyramid.read(Region(0, 0, 9, 9), (9, 9)).any()
    expected = picture(64, 64, seed=7)[:9, :9]  # read from a file that was closed meanwhile
    np.testing.assert_array_equal(early.read(Region(0, 0, 9, 9), (9, 9)), expected)
    first = images[0].pyramid
    again = images[0].pyramid
    assert (
        again.read(Region(0, 0, 9, 9), (9, 9)).tobytes()
        == first.read(Region(0, 0, 9, 9), (9, 9)).tobytes()
    )
    assert images.failed == {}
    handles = Path("/proc/self/fd")
    before = len(list(handles.iterdir())) if handles.exists() else 0
    for epoch in range(4):
        images.epoch = epoch
        for batch in loader(images, 4, shuffle=True, seed=0):
            for sample in batch:
                assert sample.pyramid.read(Region(0, 0, 8, 8), (8, 8)).any()
    assert images.failed == {}
    images.close()
    gc.collect()
    if handles.exists():
        assert len(list(handles.iterdir())) <= before
    with pytest.raises(ValueError, match="at least 1"):
        images_of(read_manifest(tmp_path / "data.csv"), keep_open=0)
    with pytest.raises(IndexError, match="8 images"):
        images[8]


def test_an_open_image_is_the_same_object_every_time(manifest: Manifest) -> None:
    images = images_of(manifest)
    first = [sample.pyramid for sample in all_of(images)]
    images.epoch = 1
    assert all(a is b for a, b in zip(first, [s.pyramid for s in all_of(images)], strict=True))
    images.close()
    assert images[0].pyramid is not first[0]
    varied = images_of(manifest, augment=Augment(noise=0.1))
    assert varied[0].pyramid is not varied[0].pyramid


def test_images_that_are_decoded_whole_do_not_fill_the_memory(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Counter[str] = Counter()

    def counted(path: Path, **options: Any) -> Pyramid:
        opened[path.stem] += 1
        return open_pyramid(path, **options)

    monkeypatch.setattr(loading, "open_pyramid", counted)
    images = images_of(manifest)
    for _ in range(2):
        all_of(images)
    assert opened == dict.fromkeys(map(str, range(12)), 1)
    monkeypatch.setattr(loading, "_MOST_BYTES", 3 * 60 * 40 * 3)
    images = images_of(manifest)
    for index in (0, 1, 2, 0, 3, 1, 0):
        images[index]
    assert opened == dict.fromkeys(map(str, range(4, 12)), 1) | {"0": 2, "1": 3, "2": 2, "3": 2}
