"""Remembered looks: the same walk with fewer looks, and a file that survives a kill."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import pytest
import torch
from fakes import FEATURES, fake_model, noise, watched
from numpy.typing import NDArray

from tnet.adapters.array import open_array
from tnet.backbones.generic import TimmBackbone
from tnet.errors import DataError, UsageError
from tnet.geometry import Region
from tnet.memory import Memory
from tnet.model import Input, TNet
from tnet.plan import Plan, Step
from tnet.pyramid import How, Pyramid
from tnet.recipes import build
from tnet.traversal import traverse, walk

TWO = Plan(view=(16, 16), steps=(Step(4, 4, 0.25, 6), Step(3, 3, 0.5, 2)), background=0.02)
TILES = Plan(view=(16, 16), tiles="native")


def small() -> TNet:
    """A network of convolutions and batch norms, frozen."""
    torch.manual_seed(0)
    model = build("default", classes=["a", "b"], backbone="test_resnet").eval()
    model.requires_grad_(False)
    return model


def features_of(model: TNet) -> int:
    """Return the length of the backbone's features."""
    assert isinstance(model.backbone, TimmBackbone)
    return model.backbone.features


def pictures(bands: int = 1) -> list[tuple[Pyramid, list[Region]]]:
    sizes = [(90, 120), (64, 64)]
    return [watched(noise(*size, bands, seed=i), name=str(i)) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("plan", [TWO, TILES], ids=["walk", "tiles"])
def test_the_same_walk_with_fewer_looks(plan: Plan) -> None:
    model = small()
    memory = Memory(None, features_of(model))
    opened = pictures(3)
    images = [picture for picture, _ in opened]
    without = traverse(model, images, plan)
    first = traverse(model, images, plan, memory=memory)
    assert len(memory) == sum(
        v.level == max(w.level for w in without.visits) for v in without.visits
    )
    for _, read in opened:
        read.clear()
    again = traverse(model, images, plan, memory=memory)
    read = [region for _, regions in opened for region in regions]
    last = max(v.level for v in again.visits)
    assert not {v.region for v in again.visits if v.level == last} & set(read)
    for trace in (first, again):
        assert [v.region for v in trace.visits] == [v.region for v in without.visits]
        torch.testing.assert_close(trace.look_GD, without.look_GD, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(trace.logits_BK, without.logits_BK, atol=1e-6, rtol=1e-5)
    assert torch.equal(first.look_GD, again.look_GD)


def test_walks_of_one_image_share_their_looks() -> None:
    model, memory = fake_model(TILES), Memory(None, FEATURES)
    picture, read = watched(noise(64, 64))
    found = walk(model, [picture, picture, picture], memory=memory)
    tiles = [region for region in read if region.width == 16]
    assert len(tiles) == 16
    for other in found[1:]:
        np.testing.assert_array_equal(other.logits, found[0].logits)


def test_tiles_are_remembered_as_the_cells_of_a_grid_on_the_same_places() -> None:
    side, cells = 16 * 47, Plan(view=(16, 16), steps=(Step(47, 47, 1 / 47, 47 * 47),))
    model, memory = fake_model(TILES), Memory(None, FEATURES)
    picture, read = watched(noise(side, side))
    walk(model, [picture], memory=memory)
    assert len(memory) == 47 * 47
    read.clear()
    found = traverse(fake_model(cells), [picture], cells, memory=memory)
    assert len(found.visits) == 1 + 47 * 47
    assert [region for region in read if region.width < side] == []


def test_gradients_of_the_rest_are_those_without_memory() -> None:
    model = fake_model(TWO, weighting=True)
    model.backbone.requires_grad_(False)
    image = open_array(noise(90, 120))
    grads = []
    memory = Memory(None, FEATURES)
    for known in (None, memory, memory):
        model.zero_grad()
        traverse(model, [image], TWO, memory=known).logits_BK.square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert grads[0]
    for other in grads[1:]:
        torch.testing.assert_close(other, grads[0])


def looks(model: TNet, memory: Memory, image: Pyramid, plan: Plan = TILES) -> int:
    """Return how many views the backbone gets on a walk."""
    seen: list[int] = []
    hook = model.backbone.register_forward_hook(lambda _, views, __: seen.append(len(views[0])))
    traverse(model, [image], plan, memory=memory)
    hook.remove()
    return sum(seen)


def test_what_changes_the_look_is_no_memory_of_it() -> None:
    model = small()
    memory = Memory(None, features_of(model))
    pixels = noise(64, 64, 3)

    def image(values: Any = pixels, name: str = "a") -> Pyramid:
        return open_array(values, name=name)

    assert looks(model, memory, image()) == 16
    assert looks(model, memory, image()) == 0  # opened again
    changed = pixels.copy()
    changed[40, 40] ^= 8
    assert looks(model, memory, image(changed)) == 16
    assert looks(model, memory, image(pixels[::-1])) == 16
    assert looks(model, memory, image(name="b")) == 16
    finer = Plan(view=(32, 32), tiles="native")
    assert looks(model, memory, image(), finer) == 4
    with torch.no_grad():
        next(model.backbone.parameters()).mul_(2)
    assert looks(model, memory, image()) == 16
    with torch.no_grad():
        next(model.backbone.parameters()).div_(2)
    assert looks(model, memory, image()) == 0
    model.expect(Input(mean=(0.0,) * 3, std=(9.0,) * 3))
    assert looks(model, memory, image()) == 16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert looks(model, memory, image()) == 16
        assert looks(model, memory, image()) == 0


def test_only_a_frozen_backbone_s_looks_are_remembered() -> None:
    image = open_array(noise(64, 64, 3))
    for spoil in ("training", "gradients"):
        model = small()
        memory = Memory(None, features_of(model))
        if spoil == "training":
            model.backbone.train()
        else:
            next(model.backbone.parameters()).requires_grad_(True)
        with pytest.raises(UsageError, match="only of a frozen backbone"):
            traverse(model, [image], TILES, memory=memory)
    with pytest.raises(UsageError, match="the memory is of 3 features and the backbone gives"):
        traverse(small(), [image], TILES, memory=Memory(None, 3))


def count_in(path: Path, **options: Any) -> int:
    with Memory(path, FEATURES, **options) as memory:
        return len(memory)


def test_no_more_is_remembered_than_there_is_room_for(tmp_path: Path) -> None:
    model, image = fake_model(TILES), open_array(noise(64, 64))
    path = tmp_path / "looks"
    without = traverse(model, [image], TILES)
    with Memory(path, FEATURES, most_bytes=5 * 4 * FEATURES) as memory:
        for expected in (16, 11, 11):
            assert looks(model, memory, image) == expected
        assert len(memory) == 5
        again = traverse(model, [image], TILES, memory=memory)
    torch.testing.assert_close(again.look_GD, without.look_GD)
    assert count_in(path, most_bytes=2 * 4 * FEATURES) == 2
    assert count_in(path) == 5


def test_a_file_is_read_again(tmp_path: Path) -> None:
    model, image = fake_model(TILES), open_array(noise(64, 64), name="a")
    path = tmp_path / "run" / "looks"
    with Memory(path, FEATURES) as memory:
        first = traverse(model, [image], TILES, memory=memory)
    with Memory(path, FEATURES) as again:
        assert looks(model, again, image) == 0
        recalled = traverse(model, [image], TILES, memory=again)
        assert torch.equal(recalled.look_GD, first.look_GD)
        assert looks(model, again, open_array(noise(64, 64, seed=5), name="b")) == 16
    assert count_in(path) == 32


def test_a_file_has_one_writer_and_any_number_of_readers(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="no locks of files on this system")
    model, image = fake_model(TILES), open_array(noise(64, 64), name="a")
    path = tmp_path / "looks"
    with Memory(path, FEATURES) as writer:
        traverse(model, [image], TILES, memory=writer)
        with Memory(path, FEATURES) as reader:
            assert "being written by another process" in (reader.problem or "")
            assert looks(model, reader, image) == 0
            other = open_array(noise(64, 64, seed=5), name="b")
            assert looks(model, reader, other) == 16
            assert looks(model, reader, other) == 0
        assert writer.problem is None
    assert count_in(path) == 16


def kept(path: Path) -> bytes:
    """Walk over an image with a memory, and return what its file holds then."""
    with Memory(path, FEATURES) as memory:
        image = open_array(noise(64, 64), name="a")
        traverse(fake_model(TILES), [image], TILES, memory=memory)
    return path.read_bytes()


@pytest.mark.parametrize("cut", [1, 7, 40, 16 + 4 * FEATURES + 6])
def test_a_torn_tail_is_ignored_and_mended(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "looks"
    whole = kept(path)
    path.write_bytes(whole[:-cut])
    lost = 1 + cut // (16 + 4 * FEATURES + 4)
    assert count_in(path) == 16 - lost
    assert kept(path) == whole
    assert count_in(path) == 16


def test_a_damaged_record_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "looks"
    content = bytearray(kept(path))
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert count_in(path) == 15
    kept(path)
    assert count_in(path) == 16


@pytest.mark.parametrize("length", [0, 3, 14])
def test_a_file_that_was_cut_in_its_header_starts_anew(tmp_path: Path, length: int) -> None:
    path = tmp_path / "looks"
    assert count_in(path) == 0
    header = path.read_bytes()
    path.write_bytes(header[:length])
    assert count_in(path) == 0
    assert path.read_bytes() == header


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not to be overwritten, whatever happens")
    with pytest.raises(DataError, match=r"notes\.txt: does not hold looks of 8 features"):
        Memory(path, FEATURES)
    assert path.read_text() == "not to be overwritten, whatever happens"
    Memory(tmp_path / "looks", 9).close()
    with pytest.raises(DataError, match="does not hold looks of 8 features"):
        Memory(tmp_path / "looks", FEATURES)
    with pytest.raises(DataError, match="cannot be kept there"):
        Memory(tmp_path, FEATURES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_a_full_disk_is_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = fake_model(TILES), open_array(noise(64, 64), name="a")
    with Memory(tmp_path / "looks", FEATURES) as memory:
        with Path("/dev/full").open("ab", buffering=0) as full:
            monkeypatch.setattr(memory, "_file", full)
            traverse(model, [image], TILES, memory=memory)
            assert full.closed
        assert memory.problem is not None
        assert "looks: looks are kept in memory alone from here on" in memory.problem
        assert looks(model, memory, image) == 0
        monkeypatch.undo()


class Breaking:
    """A pyramid around a pyramid that turns blank after some views, as of a damaged file."""

    def __init__(self, pyramid: Pyramid, views: int) -> None:
        self._pyramid = pyramid
        self._left = views

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pyramid, name)

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> NDArray[Any]:
        return self._pyramid.read(region, size, **how) * (self._left > 0)

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> NDArray[Any]:
        self._left -= len(regions)
        return self._pyramid.read_many(regions, size, **how) * (self._left > 0)


def test_what_a_broken_image_shows_is_not_remembered() -> None:
    model, memory = fake_model(TILES), Memory(None, FEATURES)
    sound = [open_array(noise(64, 64, seed=i), name=str(i)) for i in range(3)]
    broken = cast(Pyramid, Breaking(sound[1], views=9))
    traverse(model, [sound[0], broken, sound[2]], TILES, micro_batch=4, memory=memory)
    assert len(memory) == 32
    for image, expected in zip(sound, (0, 16, 0), strict=True):
        assert looks(model, memory, image) == expected


def test_copies_of_a_training_share_the_memory() -> None:
    memory = Memory(None, FEATURES)
    assert copy.deepcopy({"memory": memory})["memory"] is memory
