"""Glimpses on the grid of stored tiles: where they move, and that fewer tiles are read."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from command_line import CommandLine, picture, write_model
from fakes import fake_model, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tnet.adapters import crop
from tnet.adapters.array import open_array
from tnet.descent import Journey, descend, root
from tnet.errors import UsageError
from tnet.geometry import Grid, Region
from tnet.plan import Plan, Step
from tnet.pyramid import Facts, Level, LevelPyramid
from tnet.record import Walk
from tnet.scripts.prepare import changed_plan
from tnet.snapping import snapped, tiles_under
from tnet.traversal import walk

CHUNK = 256


class Tiled(LevelPyramid):
    """An image of tiles that holds one value and writes down every tile that is read."""

    def __init__(self, width: int, height: int, tile: tuple[int, int], factor: int = 2) -> None:
        levels: list[Level] = []
        scale = 1
        while not levels or max(width, height) // scale > 64:
            size = -(-width // scale), -(-height // scale)
            levels.append(Level(*size, float(scale), float(scale), tile))
            scale *= factor
        super().__init__(
            Facts("tiled", "test", tuple(levels), 1, np.dtype(np.uint8), background=(0.0,))
        )
        self.read_tiles: set[tuple[int, int, int]] = set()

    def _fetch(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        tile = self.levels[level].tile
        assert tile is not None
        self.read_tiles |= {
            (level, row, column)
            for row in range(y // tile[1], (y + height - 1) // tile[1] + 1)
            for column in range(x // tile[0], (x + width - 1) // tile[0] + 1)
        }
        return np.full((height, width, 1), 9, np.uint8)

    def counted(self, region: Region, view: tuple[int, int], valid: Region | None = None) -> int:
        """Read a region; return how many tiles that took."""
        self.read_tiles.clear()
        self.read(region, view, valid=valid)
        return len(self.read_tiles)


def whole(image: Tiled) -> Region:
    return Region(0, 0, image.width, image.height)


def moved(
    region: Region, snap: float, image: Tiled, view: tuple[int, int], frame: Region | None = None
) -> Region:
    spans = [(region.y, region.height)], [(region.x, region.width)]
    (box,) = snapped(spans, snap, view, image.levels, frame or whole(image))
    return Region(*box.tolist())


@st.composite
def reads(draw: st.DrawFn) -> tuple[Tiled, Region, tuple[int, int]]:
    """An image, a region that touches it, and a view."""
    tile = draw(st.sampled_from([16, 24, 64, 100])), draw(st.sampled_from([16, 64, 300]))
    image = Tiled(
        draw(st.integers(100, 1500)),
        draw(st.integers(100, 1500)),
        tile,
        draw(st.sampled_from([2, 3, 4, 10])),
    )
    view = draw(st.integers(8, 80)), draw(st.integers(8, 80))
    if draw(st.booleans()):  # pixels of the view are pixels of a level
        level = draw(st.sampled_from(image.levels))
        size = [side * level.scale_x for side in view]
    else:
        size = [draw(st.floats(4, 1500)) for _ in view]
    x = draw(st.integers(-3, image.width - 1) | st.floats(-size[0] + 1, image.width - 1))
    y = draw(st.integers(-3, image.height - 1) | st.floats(-size[1] + 1, image.height - 1))
    return image, Region(x, y, size[0], size[1]), view


@settings(deadline=None)
@given(reads(), st.floats(0, 0.5))
def test_no_read_touches_more_tiles_or_moves_further_than_it_may(
    read: tuple[Tiled, Region, tuple[int, int]], snap: float
) -> None:
    image, region, view = read
    found = moved(region, snap, image, view)
    assert (found.width, found.height) == (region.width, region.height)
    assert abs(found.x - region.x) <= snap * region.width
    assert abs(found.y - region.y) <= snap * region.height
    assert found.x >= min(0, region.x)
    assert found.y >= min(0, region.y)
    assert found.right <= max(image.width, region.right)
    assert found.bottom <= max(image.height, region.bottom)
    before, after = image.counted(region, view), image.counted(found, view)
    assert after <= before


@settings(deadline=None)
@given(reads())
def test_tiles_are_those_that_a_read_fetches(read: tuple[Tiled, Region, tuple[int, int]]) -> None:
    image, region, view = read
    assert tiles_under(region, view, image.levels, whole(image)) == image.counted(region, view)


@settings(deadline=None)
@given(reads())
def test_without_snap_nothing_moves(read: tuple[Tiled, Region, tuple[int, int]]) -> None:
    image, region, view = read
    assert moved(region, 0.0, image, view) == region


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 600), st.integers(20, 120), st.sampled_from([32, 64]), st.floats(0, 0.5))
def test_the_nearest_place_of_the_fewest_tiles(
    start: int, side: int, tile: int, snap: float
) -> None:
    image = Tiled(1000, 64, (tile, 64))
    view = side - 3, 8  # not 1:1, so that a filter reaches beyond the region
    region = Region(float(start), 0.0, float(side), 8.0)
    found = moved(region, snap, image, view)
    places = [
        x
        for x in range(start - side // 2, start + side // 2 + 1)
        if abs(x - start) <= snap * side and (x >= 0 and x + side <= max(1000, start + side))
    ]
    tiles = {x: image.counted(dataclasses.replace(region, x=float(x)), view) for x in places}
    fewest = min(tiles.values())
    assert image.counted(found, view) == fewest
    assert abs(found.x - start) == min(abs(x - start) for x in places if tiles[x] == fewest)


@given(st.floats(0, 3840), st.floats(0, 3840), st.sampled_from([1, 2, 4, 8]))
def test_a_view_of_a_chunk_reads_one_chunk(x: float, y: float, scale: int) -> None:
    image = Tiled(4096, 4096, (CHUNK, CHUNK))
    side = CHUNK * scale
    region = Region(min(x, 4096.0 - side), min(y, 4096.0 - side), side, side)
    found = moved(region, 0.5, image, (CHUNK, CHUNK))
    assert image.counted(found, (CHUNK, CHUNK)) == 1
    for place in (found.x / side, found.y / side):
        assert place == pytest.approx(round(place), abs=1e-4)


def test_pixels_are_taken_as_they_are_where_they_can_be() -> None:
    image = Tiled(4096, 4096, (CHUNK, CHUNK))
    inside = Region(300.4, 20.7, 100, 100)  # one chunk already
    assert moved(inside, 0.125, image, (100, 100)) == Region(300, 21, 100, 100)
    # Out of reach, or of another scale: as few tiles as before are no reason to move.
    assert moved(inside, 0.001, image, (100, 100)) == inside
    assert moved(inside, 0.125, image, (90, 90)) == inside


def test_what_lies_beyond_the_frame_is_not_shown_for_fewer_tiles() -> None:
    image = Tiled(4096, 4096, (CHUNK, CHUNK))
    region, view = Region(270, 270, 256, 256), (256, 256)
    assert moved(region, 0.25, image, view) == Region(256, 256, 256, 256)
    frame = Region(260, 0, 2000, 2000)
    found = moved(region, 0.25, image, view, frame)
    assert (found.x, found.y) == (270, 256)
    assert image.counted(found, view, frame) < image.counted(region, view, frame)


def test_nothing_moves_where_no_tile_would_be_saved() -> None:
    region, view = Region(30, 30, 200, 200), (128, 128)
    unknown = [Level(4096, 4096, 1.0, 1.0, None)]
    spans = [(region.y, region.height)], [(region.x, region.width)]
    frame = Region(0, 0, 4096, 4096)
    assert snapped(spans, 0.5, view, unknown, frame).tolist() == [[30, 30, 200, 200]]
    assert tiles_under(region, view, unknown, frame) is None
    # Half the resolution of a level that stands alone comes from an overview in memory.
    alone = [Level(4096, 4096, 1.0, 1.0, (CHUNK, CHUNK))]
    spans = [(500.0, 300.0)], [(500.0, 300.0)]
    assert snapped(spans, 0.5, (150, 150), alone, frame).tolist() == [[500, 500, 300, 300]]
    assert snapped(spans, 0.5, (151, 151), alone, frame).tolist() != [[500, 500, 300, 300]]


def test_all_candidates_at_once_move_as_each_alone() -> None:
    image = Tiled(1000, 900, (64, 48))
    grid = Grid(5, 4, 0.3)
    parent = Region(100, 50, 700, 800)
    for view in ((40, 50), (210, 240)):
        boxes = snapped(grid.spans(parent), 0.25, view, image.levels, whole(image))
        each = [moved(cell, 0.25, image, view) for cell in grid.children(parent)]
        assert [Region(*box.tolist()) for box in boxes] == each


def test_a_crop_does_not_know_its_tiles() -> None:
    image = Tiled(4096, 4096, (CHUNK, CHUNK))
    part = crop(image, Region(5, 5, 900, 900))
    assert {level.tile for level in part.levels} == {None}


# Views of 64 pixels on an image of 64-pixel tiles, with candidates half a side apart.
PLAN = Plan(view=(64, 64), steps=(Step(7, 7, 0.25, 6), Step(7, 7, 0.25, 5)), snap=0.5)
SIDE = 1024


def walked(plan: Plan, **how: Any) -> Walk:
    (found,) = walk(fake_model(plan), [Tiled(SIDE, SIDE, (64, 64))], **how)
    return found


def regions(found: Walk) -> list[Region]:
    return [glimpse.region for glimpse in found.glimpses]


@pytest.mark.parametrize("policy", ["greedy", "categorical", "uniform"])
def test_a_walk_on_the_grid_looks_nowhere_twice(policy: Any) -> None:
    found = walked(PLAN, policy=policy, seed=3)
    seen = regions(found)
    assert len(seen) > 20
    assert len(set(seen)) == len(seen)
    image = Tiled(SIDE, SIDE, (64, 64))
    assert {image.counted(region, PLAN.view) for region in seen[1:]} == {1}
    for glimpse in found.glimpses[1:]:
        assert glimpse.parent is not None
        parent = found.glimpses[glimpse.parent].region
        cell = Grid(7, 7, 0.25).child(parent, 7 * (glimpse.row or 0) + (glimpse.column or 0))
        assert abs(glimpse.region.x - cell.x) <= cell.width / 2
    assert Walk.from_json(found.to_json()) == found
    assert found.plan["snap"] == 0.5


def test_log_probs_are_those_of_the_cells_that_stand_for_all() -> None:
    found = walked(PLAN, policy="categorical", seed=3)
    for parent in range(7):
        drawn = sorted(
            (g for g in found.glimpses if g.parent == parent), key=lambda glimpse: glimpse.rank
        )
        left = 1.0
        for glimpse in drawn:
            assert glimpse.log_prob == pytest.approx(math.log(glimpse.probability / left), abs=1e-5)
            left -= glimpse.probability


def test_of_candidates_on_one_place_the_best_stands_for_all() -> None:
    # Candidates of 64 pixels at 0, 32 and 64 on tiles of 64: the middle one goes to the first.
    plan = Plan(view=(64, 64), steps=(Step(1, 3, 0.5, 3),), snap=0.5)
    image = Tiled(128, 128, (64, 64))
    logits = torch.tensor([[0.0, 2.0, 1.0]])

    def chosen(plan: Plan) -> dict[int | None, float]:
        trip = Journey.start([image], plan, "greedy", [None])
        choice = descend([root(image, plan, 0)], 0, logits, None, trip)
        return {visit.cell: visit.region.x for visit in choice.visits}

    assert chosen(plan) == {1: 0, 2: 64}
    assert chosen(dataclasses.replace(plan, revisit=True)) == {0: 0, 1: 0, 2: 64}
    assert chosen(dataclasses.replace(plan, snap=0.0)) == {0: 0, 1: 32, 2: 64}


def test_a_batch_is_snapped_as_each_image_alone() -> None:
    pictures = [Tiled(SIDE, SIDE, (64, 64)), Tiled(900, 700, (48, 64))]
    model = fake_model(PLAN)
    together = walk(model, pictures, policy="uniform", seed=5)
    for image, found in zip(pictures, together, strict=True):
        (alone,) = walk(model, [image], policy="uniform", seed=5, micro_batch=1)
        assert regions(alone) == regions(found)


def test_positions_are_those_of_the_snapped_regions() -> None:
    image = Tiled(1000, 1000, (48, 48))
    plan = dataclasses.replace(PLAN, steps=(Step(3, 3, 0.3, 9),))
    trip = Journey.start([image], plan, "greedy", [None])
    choice = descend([root(image, plan, 0)], 0, torch.zeros(1, 9), None, trip)
    plain = [cell.x for cell in Grid(3, 3, 0.3).children(Region(0, 0, 1000, 1000))]
    assert [visit.region.x for visit in choice.visits] != plain
    for visit in choice.visits:
        y, x, _ = visit.position
        centre = visit.region.x + visit.region.width / 2, visit.region.y + visit.region.height / 2
        assert (x * 10, y * 10) == pytest.approx(centre)


@pytest.mark.parametrize(
    "change",
    [
        {"outside": "zero"},
        {"aspect": "keep", "view": (64, 40)},
        {"until": "native"},
        {"background": 0.02},
        {"positions": "cells"},
    ],
    ids=str,
)
def test_other_fields_go_with_it(change: dict[str, Any]) -> None:
    plan = dataclasses.replace(PLAN, **change)
    plain = walked(dataclasses.replace(plan, snap=0.0))
    found = walked(plan)
    assert [g.level for g in found.glimpses] == [g.level for g in plain.glimpses]
    assert len(set(regions(found))) == len(regions(found))
    image = Tiled(SIDE, SIDE, (64, 64))
    count = [sum(image.counted(r, plan.view) for r in regions(w)) for w in (found, plain)]
    assert count[0] < count[1]


def test_an_image_in_memory_is_walked_as_before() -> None:
    pixels = noise(500, 400)
    plain, found = (
        walk(fake_model(plan), [open_array(pixels)])[0]
        for plan in (dataclasses.replace(PLAN, snap=0.0), PLAN)
    )
    assert regions(found) == regions(plain)


@pytest.mark.parametrize("snap", [-0.1, 0.6, math.nan, "much", True, None])
def test_a_senseless_snap_is_a_sentence(snap: Any) -> None:
    with pytest.raises(UsageError, match=r"snap must be between 0 and 0\.5"):
        Plan.from_dict({"snap": snap})


@pytest.mark.parametrize("field", ["rule", "resampling"])
def test_the_official_form_does_not_snap(field: str) -> None:
    with pytest.raises(UsageError, match="snap moves regions"):
        Plan.from_dict({"snap": 0.25, field: "official"})


def test_plans_of_older_files_do_not_snap() -> None:
    values = PLAN.to_dict()
    assert Plan.from_dict(values) == PLAN
    del values["snap"]
    assert Plan.from_dict(values).snap == 0.0


def test_the_flag(tnet: CommandLine, tmp_path: Path) -> None:
    pixels = picture(1000, 1000)
    image = zarr.create_array(
        tmp_path / "image.zarr", shape=pixels.shape, chunks=(48, 48, 3), dtype="uint8"
    )
    image[:] = pixels
    model = write_model(tmp_path / "model.safetensors")

    command = ("classify", tmp_path / "image.zarr", "--model", model)

    def classified(*flags: str) -> Walk:
        out = tmp_path / "-".join(("out", *flags))
        assert tnet(*command, "--out", out, "--no-overlay", *flags).code == 0
        (record,) = (out / "walks").iterdir()
        return Walk.from_json(record.read_text(encoding="utf-8"))

    plain, still, found = classified(), classified("--snap", "0"), classified("--snap", "0.25")
    assert [walk.plan["snap"] for walk in (plain, still, found)] == [0.0, 0.0, 0.25]
    assert regions(plain) == regions(still) != regions(found)
    done = tnet(*command, "--snap", "2")
    assert (done.code, done.out) == (2, "")
    assert "snap must be between 0 and 0.5" in done.err


def test_the_flag_left_out_keeps_the_model_s_own() -> None:
    plan = Plan(snap=0.25)
    assert changed_plan(plan, glimpses=None, until=None, background=None, snap=None) == plan
