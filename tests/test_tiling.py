"""Looking at every tile: where tiles lie, which are left out, and what the record says of them."""

import dataclasses
import json
from typing import Any, cast

import numpy as np
import pytest
import torch
from fakes import FEATURES, fake_model, noise, quiet_trainer, watched
from torch.utils.data import DataLoader

from tnet.adapters.array import open_array
from tnet.adapters.overlay import draw_walk
from tnet.aggregate import AggregateName, named_aggregate
from tnet.errors import DataError, UsageError
from tnet.geometry import Region
from tnet.memory import Memory
from tnet.objective import Rule
from tnet.plan import Plan, Step
from tnet.recipes import build
from tnet.record import NO_EVIDENCE, Walk
from tnet.task import Sample, Settings, Training
from tnet.tiling import over_tiles, tile_visits
from tnet.traversal import traverse, walk

TILES = Plan(view=(16, 16), tiles="native")


def regions(found: Walk) -> list[Region]:
    return [glimpse.region for glimpse in found.glimpses]


def test_tiles_cover_the_image_side_by_side() -> None:
    picture, read = watched(noise(40, 50))
    (found,) = walk(fake_model(TILES), [picture])
    expected = [Region(16.0 * x, 16.0 * y, 16, 16) for y in range(3) for x in range(4)]
    assert read == expected  # the whole image is not even read
    assert regions(found) == [Region(0, 0, 50, 40), *expected]
    assert [(g.row, g.column) for g in found.glimpses[1:]] == [
        (y, x) for y in range(3) for x in range(4)
    ]


@pytest.mark.parametrize("weighting", [False, True])
def test_the_record_is_a_walk_that_adds_up(weighting: bool) -> None:
    (found,) = walk(fake_model(TILES, weighting=weighting), [open_array(noise(64, 48))])
    first, *tiles = found.glimpses
    assert (first.level, first.parent, first.weight) == (0, None, 0)
    assert set(first.contributions) == {0.0}
    assert {(g.level, g.parent, g.probability, g.log_prob) for g in tiles} == {(1, 0, 1.0, 0.0)}
    parts = np.array([g.contributions for g in found.glimpses])
    np.testing.assert_allclose(parts.sum(axis=0) + found.bias, found.logits, atol=1e-5)
    assert sum(g.weight for g in tiles) == pytest.approx(1, abs=1e-5)
    assert found.looks == found.to_dict()["cost"]["glimpses"] == len(tiles) == 12
    assert found.pixels == len(tiles) * 16 * 16
    assert found.share == pytest.approx(1)
    assert found.features is not None
    assert found.features.shape == (len(tiles) + 1, FEATURES)
    assert Walk.from_json(found.to_json()) == found
    assert draw_walk(found, open_array(noise(64, 48)), 256).size[0] >= 256


def test_background_is_left_out() -> None:
    pixels = np.zeros((64, 96), dtype=np.uint8)
    pixels[16:32, 48:64] = 90  # tile (1, 3), full
    pixels[50:58, 4:12] = 90  # a quarter of tile (3, 0), which from afar seems a little more
    plan = dataclasses.replace(TILES, background=0.2)
    (found,) = walk(fake_model(plan), [open_array(pixels)])
    assert [(g.row, g.column) for g in found.glimpses[1:]] == [(1, 3), (3, 0)]
    plan = dataclasses.replace(TILES, background=0.8)
    (found,) = walk(fake_model(plan), [open_array(pixels)])
    assert [(g.row, g.column) for g in found.glimpses[1:]] == [(1, 3)]


def test_an_image_of_nothing_is_looked_at_once_and_is_no_evidence() -> None:
    plan = dataclasses.replace(TILES, background=0.02)
    blank, full = open_array(np.zeros((64, 64), np.uint8)), open_array(noise(64, 64))
    nothing, something = walk(fake_model(plan), [blank, full])
    assert nothing.outcome == NO_EVIDENCE
    assert len(nothing.glimpses) == 2
    assert something.outcome == "class"
    assert len(something.glimpses) == 17


def test_strips_of_the_overview_see_what_one_look_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(150, 200)
    pixels[30:90, 20:160] = 0
    plan = dataclasses.replace(TILES, background=0.3)
    whole, _ = tile_visits(open_array(pixels), plan, 0)
    monkeypatch.setattr("tnet.tiling._STRIP", 1)
    striped, _ = tile_visits(open_array(pixels), plan, 0)
    assert [v.region for v in striped] == [v.region for v in whole]
    assert 0 < len(whole) < 13 * 10


def test_tiles_of_a_scale_are_as_large_as_the_image_s_pixels_say() -> None:
    plan = Plan(view=(16, 16), tiles=2.0)
    fine = open_array(noise(128, 128), spacing=(0.5, 0.5), unit="µm")
    coarse = open_array(noise(128, 128), spacing=(1.0, 1.0), unit="µm")
    for picture, side in ((fine, 64), (coarse, 32)):
        visits, _ = tile_visits(picture, plan, 0)
        assert {(v.region.width, v.region.height) for v in visits} == {(side, side)}
        assert len(visits) == (128 // side) ** 2
    with pytest.raises(DataError, match="give --mpp"):
        walk(fake_model(plan), [open_array(noise(64, 64))])


def test_positions_of_tiles_are_those_of_a_walk_s_glimpses() -> None:
    picture = open_array(noise(64, 64))
    model = fake_model(TILES)
    tiles = traverse(model, [picture], dataclasses.replace(TILES, positions="centres"))
    walked = traverse(model, [picture], Plan(view=(16, 16), steps=(Step(4, 4, 0.25, 16),)))
    assert [v.region for v in tiles.visits] == [v.region for v in walked.visits[1:]]
    assert [v.position for v in tiles.visits] == [v.position for v in walked.visits[1:]]
    torch.testing.assert_close(tiles.feature_GD, walked.feature_GD[1:])


def test_micro_batches_and_batches_change_nothing() -> None:
    pictures = [open_array(noise(64 + 16 * i, 50, seed=i), name=str(i)) for i in range(3)]
    model = fake_model(TILES, weighting=True)
    together = walk(model, pictures, micro_batch=5)
    for picture, found in zip(pictures, together, strict=True):
        (alone,) = walk(model, [picture], micro_batch=1)
        assert regions(alone) == regions(found)
        np.testing.assert_allclose(alone.logits, found.logits, atol=1e-5)


def test_never_more_views_at_once_than_a_micro_batch() -> None:
    model = fake_model(TILES)
    seen: list[int] = []
    model.backbone.register_forward_hook(lambda _, views, __: seen.append(len(views[0])))
    walk(model, [open_array(noise(160, 160))], micro_batch=8)
    assert sum(seen) == 100
    assert max(seen) == 8
    # A frozen backbone streams while the rest learns.
    seen.clear()
    model.train()
    model.backbone.eval()
    traverse(model, [open_array(noise(160, 160))], micro_batch=8)
    assert max(seen) == 8


def test_too_many_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tnet.tiling.MOST_TILES", 8)
    with pytest.raises(UsageError, match=r"scan\.tif: has more than 8 tiles of 16 x 16 pixels"):
        walk(fake_model(TILES), [open_array(noise(64, 64), name="scan.tif")])


def test_an_aggregate_of_levels_has_no_use_for_tiles() -> None:
    model = build("default", classes=["a", "b"], backbone="test_resnet", aggregate="aff")
    with pytest.raises(UsageError, match="all of one level"):
        over_tiles(model, [open_array(noise(64, 64, 3))], TILES, micro_batch=4)


@pytest.mark.parametrize(
    "change",
    [
        {"tiles": "coarse"},
        {"tiles": 0},
        {"tiles": True},
        {"tiles": [1]},
        {"tiles": float("nan")},
        {"tiles": "native", "steps": [{"rows": 2, "columns": 2, "patch": 0.5, "glimpses": 1}]},
        {"tiles": "native", "rule": "official"},
        {"tiles": "native", "resampling": "official"},
        {"tiles": "native", "first_view": [64, 64]},
        {"tiles": "native", "tiles_share": 0},
        {"tiles": "native", "tiles_share": 1.1},
        {"tiles": "native", "tiles_share": "half"},
        {"tiles_share": 0.5},
        {"first_view": [0, 5]},
        {"first_view": 3},
        {"first_view": [5000, 5]},
    ],
    ids=str,
)
def test_senseless_plans_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="plan: "):
        Plan.from_dict(change)


def test_a_plan_of_tiles_survives_json_and_takes_no_glimpses() -> None:
    for plan in (TILES, Plan(tiles=0.5), Plan(first_view=(448, 300))):
        assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    with pytest.raises(UsageError, match="looks at every tile and takes no glimpses"):
        TILES.with_glimpses([3])
    with pytest.raises(UsageError, match="has no tiles"):
        Plan().tile(None)


@pytest.mark.parametrize("aggregate", ["attention", "weighting", "mean"])
def test_an_empty_image_among_others_spoils_no_gradient(aggregate: AggregateName) -> None:
    plan = dataclasses.replace(TILES, background=0.02)
    model = fake_model(plan)
    model.aggregate = named_aggregate(aggregate, FEATURES)
    blank, full = open_array(np.zeros((64, 64), np.uint8)), open_array(noise(64, 48))
    trace = traverse(model, [blank, full], plan)
    assert trace.empty == [True, False]
    assert trace.image_G.tolist() == [0] + [1] * 12
    assert set(trace.level_G.tolist()) == {1}
    assert trace.log_prob_G.tolist() == [0.0] * 13
    assert trace.choices == []
    trace.logits_BK.square().sum().backward()
    for parameter in [*model.aggregate.parameters(), *model.classifier.parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_a_share_of_the_tiles_is_drawn_anew_by_each_seed() -> None:
    picture, model = open_array(noise(160, 160)), fake_model(TILES)
    some = dataclasses.replace(TILES, tiles_share=0.3)

    def seen(*seeds: int) -> list[list[int | None]]:
        found = traverse(model, [picture] * len(seeds), some, seed=seeds)
        return [[v.cell for v in found.visits if v.image == i] for i in range(len(seeds))]

    one, other, again = seen(1, 2, 1)
    assert one == again == seen(1)[0]
    assert one != other
    for cells in (one, other):
        assert len(cells) == 30
        places = [cell for cell in cells if cell is not None]
        assert places == sorted(set(places))
    assert len(set().union(*seen(*range(40)))) == 100  # none is never drawn
    assert len(seen(5)[0]) == 30
    tiny = dataclasses.replace(TILES, tiles_share=0.001)
    assert len(traverse(model, [picture], tiny, seed=0).visits) == 1
    with pytest.raises(UsageError, match="a share of the tiles is drawn at random and needs a"):
        traverse(model, [picture], some)


def test_a_training_over_a_share_of_the_tiles_is_measured_on_all() -> None:
    opened = [watched(noise(64, 64, 3, seed=i), name=str(i)) for i in range(4)]
    model = build("default", classes=["a", "b"], backbone="test_resnet", aggregate="attention")
    model.plan = TILES
    rule = Rule(reinforce=0.0, main_ce=1.0)
    training = Training(model, Settings(rule=rule, freeze="backbone", tiles_share=0.25))
    batch = [Sample(picture, i % 2, i) for i, (picture, _) in enumerate(opened)]
    loader: DataLoader[Any] = DataLoader(cast(Any, batch), batch_size=4, collate_fn=list)
    quiet_trainer(1).fit(training, loader, loader)
    seen = [region for _, read in opened for region in read if region.width == 16]
    # The trainer measures on all of them, once before it begins and once after its epoch.
    assert len(seen) == 4 * 4 + 2 * 4 * 16
    assert model.plan == TILES
    with pytest.raises(UsageError, match="tiles_share must be above 0, at most 1, got 0"):
        Settings(tiles_share=0)


def test_a_training_over_tiles_reads_each_tile_once() -> None:
    opened = [watched(noise(48, 64, 3, seed=i), name=str(i)) for i in range(4)]
    model = build("default", classes=["a", "b"], backbone="test_resnet", aggregate="attention")
    model.plan = TILES
    memory = Memory(None, model.classifier.linear.in_features)
    settings = Settings(rule=Rule(reinforce=0.0, main_ce=1.0), freeze="backbone", head_lr=0.01)
    training = Training(model, settings, memory=memory)
    batch = [Sample(picture, i % 2, i) for i, (picture, _) in enumerate(opened)]
    before = model.classifier.linear.weight.detach().clone()
    loader: DataLoader[Any] = DataLoader(cast(Any, batch), batch_size=4, collate_fn=list)
    quiet_trainer(3).fit(training, loader, loader)
    assert len(memory) == 4 * 12
    for _, read in opened:
        assert len([region for region in read if region.width == 16]) == 12
    assert not torch.equal(model.classifier.linear.weight, before)
