"""The walk from end to end, with parts and images whose right answer is known."""

import dataclasses
import math
import threading
from typing import Any, cast

import numpy as np
import pytest
import torch
from fakes import CLASSES, fake_model, noise, watched
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tnet.adapters.array import open_array
from tnet.errors import DataError, UsageError
from tnet.geometry import Region
from tnet.plan import Plan, Step
from tnet.pyramid import Pyramid
from tnet.record import NO_EVIDENCE, Walk
from tnet.traversal import traverse, walk

THREE = Plan(view=(32, 32), steps=(Step(4, 4, 0.25, 2), Step(4, 4, 0.25, 1)))
OVERLAP = Plan(view=(16, 16), steps=(Step(3, 3, 0.5, 9), Step(3, 3, 0.5, 9)))


def check(found: Walk) -> None:
    """What holds for every walk that saw something."""
    bias = np.array(found.bias)
    parts = np.array([glimpse.contributions for glimpse in found.glimpses])
    np.testing.assert_allclose(parts.sum(axis=0) + bias, found.logits, atol=1e-5)
    assert sum(glimpse.weight for glimpse in found.glimpses) == pytest.approx(1, abs=1e-5)
    assert found.probabilities.sum() == pytest.approx(1, abs=1e-9)
    assert (found.probabilities >= 0).all()
    assert found.outcome == "class"
    assert found.label == found.classes[int(found.logits.argmax())]
    for i, glimpse in enumerate(found.glimpses):
        assert math.isfinite(glimpse.log_prob)
        assert 0 < glimpse.probability <= 1 + 1e-9
        if i == 0:
            assert glimpse.parent is None
            assert (glimpse.level, glimpse.row, glimpse.column) == (0, None, None)
            continue
        assert glimpse.parent is not None
        assert 0 <= glimpse.parent < i
        assert glimpse.level == found.glimpses[glimpse.parent].level + 1
    assert found.features is not None
    assert found.features.shape == (len(found.glimpses), 8)
    assert Walk.from_json(found.to_json()) == found


def regions(found: Walk) -> list[Region]:
    return [glimpse.region for glimpse in found.glimpses]


def same(a: Walk, b: Walk) -> None:
    """Two walks of the same image took the same way."""
    assert regions(a) == regions(b)
    assert [g.rank for g in a.glimpses] == [g.rank for g in b.glimpses]
    assert [g.parent for g in a.glimpses] == [g.parent for g in b.glimpses]
    assert a.label == b.label
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-5)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (3000, 800), (1999, 2701), (4064, 4064)])
def test_it_finds_the_bright_square(x: int, y: int) -> None:
    pixels = np.full((4096, 4096), 10, dtype=np.uint8)
    pixels[y : y + 32, x : x + 32] = 255
    plan = Plan(
        view=(64, 64), steps=(Step(8, 8, 0.25, 1), Step(8, 8, 0.25, 1), Step(8, 8, 0.25, 1))
    )
    (found,) = walk(fake_model(plan), [open_array(pixels)])
    check(found)
    assert [g.level for g in found.glimpses] == [0, 1, 2, 3]
    square = Region(x, y, 32, 32)
    for outer, inner in zip(regions(found), regions(found)[1:], strict=False):
        assert outer.contains(inner)
        assert inner.width == outer.width / 4
        shown = inner.intersection(square)
        assert shown is not None
    last = regions(found)[-1].intersection(square)
    assert last is not None
    assert last.area > 0.4 * square.area


def test_of_several_the_brightest_are_looked_at_in_raster_order() -> None:
    pixels = np.full((256, 256), 10, dtype=np.uint8)
    pixels[130:180, 70:120] = 200  # row 2, column 1
    pixels[10:60, 200:250] = 250  # row 0, column 3
    pixels[200:250, 10:60] = 90  # row 3, column 0
    plan = Plan(view=(64, 64), steps=(Step(4, 4, 0.25, 2),))
    (found,) = walk(fake_model(plan), [open_array(pixels)])
    assert [(g.row, g.column, g.rank) for g in found.glimpses[1:]] == [(0, 3, 0), (2, 1, 1)]
    assert regions(found)[1:] == [Region(192, 0, 64, 64), Region(64, 128, 64, 64)]


def images() -> list[Any]:
    sizes = [(200, 300), (97, 97), (512, 64), (33, 250), (400, 401)]
    return [open_array(noise(h, w, seed=i), name=f"{i}") for i, (h, w) in enumerate(sizes)]


class Meeting:
    """A pyramid around a pyramid whose first read waits for that of all others."""

    def __init__(self, pyramid: Pyramid, all_here: threading.Barrier) -> None:
        self._pyramid = pyramid
        self._all_here = all_here

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pyramid, name)

    def read_many(self, regions: Any, size: tuple[int, int], **how: Any) -> NDArray[Any]:
        if regions[0].width == self._pyramid.width:
            self._all_here.wait(timeout=20)
        return self._pyramid.read_many(regions, size, **how)


def test_images_of_a_batch_are_read_side_by_side() -> None:
    pictures = [open_array(noise(300, 200, seed=i), name=str(i)) for i in range(2)]
    all_here = threading.Barrier(2)
    meeting = [cast(Pyramid, Meeting(picture, all_here)) for picture in pictures]
    model = fake_model(THREE)
    for picture, found in zip(pictures, walk(model, meeting), strict=True):
        (alone,) = walk(model, [picture])
        same(alone, found)


@pytest.mark.parametrize("policy", ["greedy", "categorical", "uniform"])
@pytest.mark.parametrize("weighting", [False, True])
def test_a_batch_walks_as_each_image_alone(policy: Any, weighting: bool) -> None:
    plan = Plan(view=(24, 20), steps=(Step(3, 3, 0.5, 3), Step(4, 3, 0.4, 2)), background=0.02)
    model = fake_model(plan, weighting=weighting)
    pictures = images()
    # Of the last image little is worth a look, so that walks differ in length.
    blank = np.zeros((90, 90), dtype=np.uint8)
    blank[:8, :8] = 77
    pictures.append(open_array(blank, name="5"))
    seeds = list(range(10, 16))
    together = walk(model, pictures, seed=seeds, policy=policy)
    assert len({len(found.glimpses) for found in together}) > 1
    for found in together:
        check(found)
    for picture, seed, found in zip(pictures, seeds, together, strict=True):
        (alone,) = walk(model, [picture], seed=[seed], policy=policy, micro_batch=1)
        same(alone, found)
    order = [4, 2, 5, 0, 1, 3]
    shuffled = walk(
        model,
        [pictures[i] for i in order],
        seed=[seeds[i] for i in order],
        policy=policy,
        micro_batch=3,
    )
    for i, found in zip(order, shuffled, strict=True):
        same(together[i], found)


@pytest.mark.parametrize("policy", ["categorical", "uniform"])
def test_draws_follow_the_seed(policy: Any) -> None:
    model, picture = fake_model(THREE), open_array(noise(256, 256))
    first, again, other = (
        walk(model, [picture], seed=seed, policy=policy)[0] for seed in (1, 1, 2)
    )
    same(first, again)
    assert regions(first) != regions(other)
    # One number is the seed of every image.
    for found in walk(model, [picture] * 2, seed=1, policy=policy):
        same(first, found)


def test_seeds_of_any_size() -> None:
    model, picture = fake_model(THREE), open_array(noise(64, 64))
    for seed in (0, -1, 2**63, 2**64, 10**30, np.int64(3)):
        assert walk(model, [picture], seed=seed, policy="uniform")  # type: ignore[arg-type]


def test_seeds_are_needed_and_counted() -> None:
    model, picture = fake_model(THREE), open_array(noise(64, 64))
    with pytest.raises(UsageError, match="needs a seed"):
        walk(model, [picture], policy="categorical")
    with pytest.raises(UsageError, match="2 images need as many seeds, got 1"):
        walk(model, [picture] * 2, policy="categorical", seed=[1])
    with pytest.raises(ValueError, match="policy must be one of"):
        walk(model, [picture], policy="best", seed=1)  # type: ignore[arg-type]


def test_log_probs_are_those_of_the_draw() -> None:
    plan = Plan(view=(16, 16), steps=(Step(2, 2, 0.5, 3),))
    (found,) = walk(fake_model(plan), [open_array(noise(64, 64))], seed=5, policy="categorical")
    drawn = sorted(found.glimpses[1:], key=lambda glimpse: glimpse.rank)
    left = 1.0
    for glimpse in drawn:
        assert glimpse.log_prob == pytest.approx(math.log(glimpse.probability / left), abs=1e-5)
        left -= glimpse.probability
    assert found.log_prob == pytest.approx(sum(g.log_prob for g in drawn))


@st.composite
def any_plan(draw: st.DrawFn) -> Plan:
    steps = []
    for _ in range(draw(st.integers(0, 3))):
        rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        count = draw(st.integers(0, min(4, rows * columns)))
        steps.append(Step(rows, columns, draw(st.sampled_from([0.3, 0.5, 0.75, 1.0])), count))
    aspect: Any = draw(st.sampled_from(["stretch", "keep"]))
    resampling: Any = draw(st.sampled_from(["antialias", "official"]))
    # Between pixels that are taken from far apart a strip may lie unseen, and be no evidence.
    sees_strips = (aspect, resampling) != ("keep", "official")
    return Plan(
        view=(draw(st.integers(7, 40)), draw(st.integers(7, 40))),
        steps=tuple(steps),
        aspect=aspect,
        outside=draw(st.sampled_from(["image", "zero"])),
        resampling=resampling,
        positions=draw(st.sampled_from(["cells", "centres"])),
        revisit=draw(st.booleans()),
        background=draw(st.sampled_from([None, 0.0, 0.02])) if sees_strips else None,
        policy=draw(st.sampled_from(["greedy", "categorical", "uniform"])),
        first_view=draw(st.none() | st.tuples(st.integers(7, 60), st.integers(7, 60))),
    )


@settings(max_examples=60)
@given(any_plan(), st.integers(1, 150), st.integers(1, 150), st.integers(1, 13), st.data())
def test_any_plan_walks_over_any_image(
    plan: Plan, height: int, width: int, bands: int, data: st.DataObject
) -> None:
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "float32"]))
    pixels = (noise(height, width, bands).astype(np.float64) * 3).astype(dtype)
    picture, read = watched(pixels)
    model = fake_model(plan, bands=bands, dtype=dtype, weighting=data.draw(st.booleans()))
    (found,) = walk(model, [picture], seed=1)
    check(found)
    assert read == regions(found)
    frame = Region(0, 0, width, height)
    for region in read:
        assert region.intersection(frame) is not None
    if not plan.revisit:
        assert len({dataclasses.astuple(region) for region in read}) == len(read)
    counts = [sum(g.level == level for g in found.glimpses) for level in range(5)]
    most = 1
    for step, count in zip(plan.steps, counts[1:], strict=False):
        most *= step.glimpses
        assert count <= most


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2), (1, 3)])
@pytest.mark.parametrize("until", ["steps", "native"])
def test_strips_and_specks(size: tuple[int, int], until: Any) -> None:
    plan = Plan(view=(16, 16), steps=(Step(4, 4, 0.25, 2),), until=until)
    (found,) = walk(fake_model(plan), [open_array(noise(*size))])
    check(found)
    if max(size) <= 16 and until == "native":
        assert len(found.glimpses) == 1


def test_an_image_too_small_for_the_official_rule_is_a_sentence() -> None:
    plan = Plan(view=(8, 8), steps=(Step(3, 3, 0.3, 1),) * 3, rule="official", revisit=True)
    with pytest.raises(UsageError, match="less than one pixel"):
        walk(fake_model(plan), [open_array(noise(9, 9))])


def test_all_logits_zero_takes_the_first_cells() -> None:
    model = fake_model(THREE, sharpness=0.0)
    (found,) = walk(model, [open_array(noise(256, 256))])
    assert [(g.row, g.column) for g in found.glimpses] == [
        (None, None),
        *[(0, 0), (0, 1)],
        *[(0, 0), (0, 0)],
    ]
    assert found.glimpses[1].probability == pytest.approx(1 / 16)


def test_until_native_ends_where_every_pixel_is_seen() -> None:
    plan = Plan(view=(16, 16), steps=(Step(2, 2, 0.5, 2),), until="native")
    (found,) = walk(fake_model(plan), [open_array(noise(256, 256))])
    check(found)
    by_level = [sum(g.level == level for g in found.glimpses) for level in range(6)]
    assert by_level == [1, 2, 4, 8, 16, 0]
    assert {g.region.width for g in found.glimpses if g.level == 4} == {16}


def test_until_a_scale_in_micrometres() -> None:
    plan = Plan(view=(16, 16), steps=(Step(2, 2, 0.5, 1),), until=1.0)
    picture = open_array(noise(256, 256), spacing=(0.25, 0.25))
    (found,) = walk(fake_model(plan), [picture])
    # 16 px of 1 µm are 64 px of 0.25 µm.
    assert [g.region.width for g in found.glimpses] == [256, 128, 64]
    with pytest.raises(DataError, match="give --mpp"):
        walk(fake_model(plan), [open_array(noise(256, 256))])


@pytest.mark.parametrize("rule", ["exact", "official"])
def test_a_walk_without_end_is_refused(rule: Any) -> None:
    # The official rule cannot make a pixel smaller.
    plan = Plan(view=(8, 8), steps=(Step(1, 1, 0.9, 1),), until=1e-9, rule=rule, revisit=True)
    picture = open_array(noise(40, 40), spacing=(1.0, 1.0))
    with pytest.raises(UsageError, match="32 levels"):
        walk(fake_model(plan), [picture])


def test_a_walk_over_too_many_regions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tnet.descent.MOST_GLIMPSES", 500)
    plan = Plan(view=(8, 8), steps=(Step(8, 8, 0.9, 64),), until="native")
    with pytest.raises(UsageError, match="500 regions"):
        walk(fake_model(plan), [open_array(noise(1000, 1000))])


def test_deeper_than_the_steps() -> None:
    (found,) = walk(fake_model(THREE), [open_array(noise(512, 512))], THREE.with_glimpses([2] * 4))
    assert [g.level for g in found.glimpses].count(4) == 16


def test_no_glimpses_is_the_first_look() -> None:
    for plan in (Plan(view=(16, 16)), THREE.with_glimpses([]), THREE.with_glimpses([0])):
        (found,) = walk(fake_model(plan), [open_array(noise(50, 40))])
        check(found)
        assert regions(found) == [Region(0, 0, 40, 50)]
        assert found.glimpses[0].weight == pytest.approx(1)


@pytest.mark.parametrize("policy", ["greedy", "categorical", "uniform"])
def test_no_region_is_read_twice(policy: Any) -> None:
    picture, read = watched(noise(200, 160))
    (found,) = walk(fake_model(OVERLAP), [picture], seed=3, policy=policy)
    check(found)
    assert len(read) == len({dataclasses.astuple(region) for region in read})
    # 9 of the first step; children of neighbours coincide: 7 x 7 places of the second.
    assert len(read) == 1 + 9 + 49
    again = dataclasses.replace(OVERLAP, revisit=True)
    (found,) = walk(fake_model(again), [picture], seed=3, policy=policy)
    assert len(found.glimpses) == 1 + 9 + 81


def test_only_what_was_chosen_is_read() -> None:
    picture, read = watched(noise(300, 300))
    (found,) = walk(fake_model(THREE), [picture], micro_batch=2)
    assert read == regions(found)


@pytest.mark.parametrize("glass", [255, 242])
def test_white_glass_is_left_out(glass: int) -> None:
    pixels = np.full((256, 256, 3), glass, dtype=np.uint8)
    pixels[64:128, 128:192] = (120, 60, 130)
    # The view's filter darkens a row of pixels around the tissue: a sixteenth of a cell.
    plan = Plan(view=(64, 64), steps=(Step(4, 4, 0.25, 16),), background=0.1)
    (found,) = walk(fake_model(plan, bands=3), [open_array(pixels)])
    check(found)
    assert regions(found)[1:] == [Region(128, 64, 64, 64)]
    assert found.glimpses[1].probability == pytest.approx(1)


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 0), ("uint16", 7), ("float32", math.nan), ("float32", -9999)]
)
def test_missing_pixels_are_left_out(dtype: str, nodata: float) -> None:
    pixels = np.full((128, 128, 2), nodata, dtype=dtype)
    pixels[32:64, 96:128] = 100
    plan = Plan(view=(32, 32), steps=(Step(4, 4, 0.25, 16),), background=0.02)
    model = fake_model(plan, bands=2, dtype=dtype)
    (found,) = walk(model, [open_array(pixels, nodata=nodata)])
    check(found)
    assert regions(found)[1:] == [Region(96, 32, 32, 32)]


def test_a_missing_corner_does_not_spoil_the_rest() -> None:
    pixels = noise(64, 64).astype(np.float32)
    pixels[:20, :30] = math.nan
    for background in (None, 0.02):
        plan = Plan(view=(32, 32), steps=(Step(2, 2, 0.5, 4),), background=background)
        (found,) = walk(fake_model(plan, dtype="float32"), [open_array(pixels)])
        check(found)
        assert np.isfinite(found.logits).all()


def test_what_lies_beyond_the_image_is_left_out() -> None:
    plan = Plan(view=(32, 32), steps=(Step(4, 4, 0.25, 16),), aspect="keep")
    (found,) = walk(fake_model(plan), [open_array(noise(64, 256))])
    check(found)
    assert regions(found)[0] == Region(0, -96, 256, 256)
    assert {(g.row, g.column) for g in found.glimpses[1:]} == {
        (row, column) for row in (1, 2) for column in range(4)
    }


def blanks() -> dict[str, tuple[NDArray[Any], float | None]]:
    return {
        "glass": (np.full((90, 70, 3), 242, dtype=np.uint8), None),
        "nodata": (np.full((90, 70, 3), 9, dtype=np.uint16), 9),
        "nan": (np.full((90, 70, 3), math.nan, dtype=np.float32), None),
    }


@pytest.mark.parametrize("kind", ["glass", "nodata", "nan"])
@pytest.mark.parametrize("steps", [0, 1])
def test_an_image_of_nothing_is_no_evidence(kind: str, steps: int) -> None:
    pixels, nodata = blanks()[kind]
    plan = Plan(view=(32, 32), steps=(Step(4, 4, 0.25, 3),) * steps, background=0.02)
    model = fake_model(plan, bands=3, dtype=str(pixels.dtype))
    there = pixels.copy()
    there[10:60, 10:60] = (30, 60, 90)
    blank, other = walk(
        model, [open_array(pixels, nodata=nodata), open_array(there, nodata=nodata)]
    )
    check(other)
    assert blank.outcome == NO_EVIDENCE
    assert blank.label is None
    assert blank.confidence is None
    assert np.isnan(blank.logits).all()
    assert np.isnan(blank.probabilities).all()
    assert len(blank.glimpses) == 1
    assert Walk.from_json(blank.to_json()) == blank


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was(training: bool) -> None:
    model = fake_model(THREE).train(training)
    model.classifier.eval()  # a frozen part
    model.backbone.train()
    before = [module.training for module in model.modules()]
    walk(model, [open_array(noise(64, 64))])
    assert [module.training for module in model.modules()] == before
    with pytest.raises(DataError):
        walk(model, [open_array(noise(64, 64, 3))])
    assert [module.training for module in model.modules()] == before


def test_images_that_do_not_fit_are_a_sentence() -> None:
    model = fake_model(THREE)
    with pytest.raises(DataError, match="has 3 bands and the model expects 1"):
        walk(model, [open_array(noise(64, 64, 3))])
    with pytest.raises(DataError, match="are uint16 and the model expects uint8"):
        walk(model, [open_array(noise(64, 64).astype(np.uint16))])
    with pytest.raises(DataError, match="has 1 band and the model expects 3"):
        walk(fake_model(THREE, bands=3), [open_array(noise(64, 64))])


def test_no_images_are_no_walks() -> None:
    assert walk(fake_model(THREE), []) == []


@pytest.mark.parametrize("micro_batch", [0, -3])
def test_a_micro_batch_holds_at_least_one_view(micro_batch: int) -> None:
    with pytest.raises(UsageError, match="micro-batch"):
        walk(fake_model(THREE), [open_array(noise(64, 64))], micro_batch=micro_batch)


def test_the_record_says_where_it_comes_from() -> None:
    picture = open_array(noise(64, 48), name="slide 7", spacing=(0.5, 0.25))
    (found,) = walk(fake_model(THREE), [picture])
    assert (found.image, found.width, found.height) == ("slide 7", 48, 64)
    assert (found.spacing, found.unit) == ((0.5, 0.25), "µm")
    assert found.classes == CLASSES
    assert Plan.from_dict(found.plan) == THREE
    assert found.pixels == len(found.glimpses) * 32 * 32
    assert found.share == pytest.approx(found.pixels / (64 * 48))
    assert found.seconds > 0


def test_ragged_bags_weigh_as_alone() -> None:
    plan = Plan(view=(16, 16), steps=(Step(2, 2, 0.5, 4),), until="native")
    for weighting in (False, True):
        model = fake_model(plan, weighting=weighting)
        pictures = [open_array(noise(n, n, seed=n)) for n in (16, 32, 64)]
        trace = traverse(model, pictures)
        assert torch.bincount(trace.image_G).tolist() == [1, 5, 21]
        for i, picture in enumerate(pictures):
            alone = traverse(model, [picture])
            torch.testing.assert_close(trace.logits_BK[i], alone.logits_BK[0])
            torch.testing.assert_close(trace.weight_G[trace.image_G == i], alone.weight_G)
