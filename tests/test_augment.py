"""Augmentation around the pyramid: exact geometry, one draw for all glimpses, no talk."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tnet.adapters.array import open_array
from tnet.adapters.views import View, facts_of
from tnet.background import foreground
from tnet.datasets.augment import Augment, Augmented, augmented, draw_seed, mapped_boxes
from tnet.datasets.colour import Colours, recolour, restained
from tnet.datasets.symmetry import Symmetry, turn
from tnet.errors import UsageError
from tnet.geometry import Region
from tnet.pyramid import Level, Pyramid

EIGHT = [Symmetry(*flags) for flags in product((False, True), repeat=3)]
MEAN, STD = (110.0, 120.0, 130.0), (50.0, 40.0, 60.0)


def noise(height: int = 96, width: int = 128, bands: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (height, width, bands), dtype=np.uint8)


def change(pyramid: Pyramid, augment: Augment, seed: int = 0, **options: Any) -> Pyramid:
    bands = pyramid.bands
    options.setdefault("mean", (MEAN * bands)[:bands])
    options.setdefault("std", (STD * bands)[:bands])
    return augmented(pyramid, augment, seed, **options)


def whole(pyramid: Pyramid, **how: Any) -> NDArray[Any]:
    size = pyramid.width, pyramid.height
    return pyramid.read(Region(0, 0, *size), size, **how)


def around(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Region:
    left, top = int(columns.min()), int(rows.min())
    return Region(left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top)


@pytest.mark.parametrize("symmetry", EIGHT)
def test_a_glimpse_of_the_turned_image_is_the_turned_glimpse(symmetry: Symmetry) -> None:
    pixels = noise()
    turned = turn(open_array(pixels, spacing=(0.5, 0.25)), symmetry)
    expected = symmetry.apply(pixels)
    assert (turned.width, turned.height) == expected.shape[1::-1]
    assert turned.spacing == ((0.25, 0.5) if symmetry.swap else (0.5, 0.25))
    np.testing.assert_array_equal(whole(turned), expected)
    regions = [Region(8, 16, 32, 24), Region(40, 30, 32, 24), Region(-8, 80, 32, 24)]
    views = turned.read_many(regions, (32, 24))
    plain = open_array(np.ascontiguousarray(expected))
    np.testing.assert_array_equal(views, plain.read_many(regions, (32, 24)))
    np.testing.assert_array_equal(views[1], turned.read(regions[1], (32, 24)))
    # The same pixels take part in every mean, and floats are added in another order.
    fine = turned.read(Region(10.5, 3.25, 70, 60), (20, 15), dtype=np.float32)
    near = plain.read(Region(10.5, 3.25, 70, 60), (20, 15), dtype=np.float32)
    np.testing.assert_allclose(fine, near, atol=1e-3)


@pytest.mark.parametrize("symmetry", EIGHT)
def test_what_may_be_seen_is_turned_too(symmetry: Symmetry) -> None:
    pixels = noise()
    turned = turn(open_array(pixels), symmetry)
    plain = open_array(np.ascontiguousarray(symmetry.apply(pixels)))
    valid = Region(10, 20, 40, 30)
    np.testing.assert_array_equal(whole(turned, valid=valid), whole(plain, valid=valid))


@pytest.mark.parametrize("symmetry", EIGHT)
def test_regions_go_forth_and_come_back(symmetry: Symmetry) -> None:
    region = Region(3, 5, 7, 11)
    there = symmetry.forth(region, 128, 96)
    assert symmetry.back(there, 128, 96) == region
    pixels = np.zeros((96, 128, 1), np.uint8)
    pixels[5:16, 3:10] = 1
    rows, columns = np.nonzero(symmetry.apply(pixels)[..., 0])
    assert around(rows, columns) == there


def test_draws_reach_all_symmetries_that_are_wanted_and_no_other() -> None:
    pyramid = open_array(noise())

    def drawn(**wanted: bool) -> set[Symmetry]:
        found = (change(pyramid, Augment(**wanted), seed) for seed in range(80))
        return {p.symmetry if isinstance(p, Augmented) else Symmetry() for p in found}

    assert drawn(flips=True, rotate=True) == set(EIGHT)
    assert drawn(flips=True) == {s for s in EIGHT if not s.swap}
    turns = drawn(rotate=True)
    assert len(turns) == 4
    corner = np.zeros((2, 2, 1))
    corner[0, 0] = 1
    quarter = {symmetry.apply(corner).tobytes() for symmetry in turns}
    assert quarter == {np.rot90(corner, k).tobytes() for k in range(4)}


def test_no_augmentation_is_the_image_itself() -> None:
    pyramid = open_array(noise())
    assert change(pyramid, Augment.named("none")) is pyramid
    assert mapped_boxes(pyramid, [Region(1, 2, 3, 4)]) == (Region(1, 2, 3, 4),)


def test_crops_show_a_part_of_the_image_and_nothing_beyond() -> None:
    pixels = noise(200, 300)
    shares, lefts = [], []
    for seed in range(40):
        cropped = change(open_array(pixels), Augment(crop=0.5), seed)
        assert isinstance(cropped, Augmented)
        x, y, width, height = (int(v) for v in asdict(cropped.part).values())
        np.testing.assert_array_equal(whole(cropped), pixels[y : y + height, x : x + width])
        beyond = cropped.read(Region(-50, -50, 40, 40), (40, 40))
        assert (beyond == 255).all()
        shares.append(width * height / 60_000)
        lefts.append(x)
    assert 0.49 < min(shares) < 0.6
    assert 0.9 < max(shares) <= 1
    assert max(lefts) > 40


def test_a_shifted_image_shows_background_where_nothing_is() -> None:
    pixels = noise(100, 100)
    seen = set()
    for seed in range(20):
        shifted = change(open_array(pixels), Augment(shift=0.1), seed)
        assert isinstance(shifted, Augmented)
        x, y = int(shifted.part.x), int(shifted.part.y)
        assert max(abs(x), abs(y)) <= 10
        expected = np.full((300, 300, 3), 255, np.uint8)
        expected[100:200, 100:200] = pixels
        expected = expected[100 + y : 200 + y, 100 + x : 200 + x]
        np.testing.assert_array_equal(whole(shifted), expected)
        seen.add((x > 0, y > 0))
    assert len(seen) == 4


@pytest.mark.parametrize("seed", range(20))
def test_boxes_go_where_their_pixels_go(seed: int) -> None:
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[90:100, 20:35] = 200
    box = Region(20, 90, 15, 10)
    augment = Augment(flips=True, rotate=True, crop=0.3, shift=0.2)
    turned = change(open_array(pixels), augment, seed, boxes=[box])
    (mapped,) = mapped_boxes(turned, [box])
    rows, columns = np.nonzero((whole(turned) == 200).all(axis=2))
    assert mapped == around(rows, columns)
    assert mapped.area == box.area


def test_boxes_that_are_cropped_away_are_left_out() -> None:
    box, corner = Region(0, 0, 30, 30), Region(150, 110, 10, 10)
    found = set()
    for seed in range(40):
        cropped = change(open_array(noise(120, 160)), Augment(crop=0.1), seed, boxes=[corner])
        mapped = mapped_boxes(cropped, [box, corner])
        assert mapped[-1].area == corner.area
        assert all(b.x >= 0 and b.right <= cropped.width for b in mapped)
        found.add(len(mapped))
    assert found == {1, 2}


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("name", ["light", "slide", "scene", "strong"])
def test_every_glimpse_changes_in_the_same_way(name: str, bands: int) -> None:
    pixels = noise(bands=bands)
    augment = replace(Augment.named(name), blur=0.0, noise=0.0, shift=0.0)
    for seed in range(5):
        changed = change(open_array(pixels), augment, seed)
        image = whole(changed)
        assert image.shape == (changed.height, changed.width, bands)
        assert image.dtype == np.uint8
        # Alone, beside others, in any order: each view is the part of the whole that it shows.
        regions = [Region(0, 0, 20, 20), Region(30, 25, 20, 20), Region(7, 3, 20, 20)]
        for views in (
            changed.read_many(regions, (20, 20)),
            changed.read_many(regions[::-1], (20, 20))[::-1],
        ):
            for region, view in zip(regions, views, strict=True):
                x, y = int(region.x), int(region.y)
                np.testing.assert_array_equal(view, image[y : y + 20, x : x + 20])
        assert (image != 255).mean() > 0.5


def test_the_same_draw_is_the_same_image_and_another_is_not() -> None:
    pyramid, region = open_array(noise()), Region(5, 6, 40, 30)
    strong = Augment.named("strong")
    first, again, other = (
        change(pyramid, strong, seed).read(region, (40, 30)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_noise_is_of_the_place_and_of_the_size_asked_for() -> None:
    grey = open_array(np.full((400, 400, 3), 128, np.uint8))
    noisy = recolour(grey, Colours(noise=0.02, seed=4), MEAN, STD)
    places = [Region(0, 0, 100, 100), Region(100, 0, 100, 100)]
    first, second = noisy.read_many(places, (100, 100), dtype=np.float32)
    np.testing.assert_array_equal(first, noisy.read(places[0], (100, 100), dtype=np.float32))
    assert (first != second).mean() > 0.99
    assert first.std() == pytest.approx(0.02 * 255, rel=0.05)
    assert first.mean() == pytest.approx(128, abs=0.2)


def test_blur_softens_edges_and_keeps_the_mean() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 200
    soft = whole(recolour(open_array(pixels), Colours(blur=2.0), MEAN, STD))
    assert 60 < soft[32, 31, 0] < 100 < soft[32, 32, 0] < 140
    assert soft.mean() == pytest.approx(pixels.mean(), abs=1)


def test_brightness_and_contrast_are_around_the_mean_of_the_data() -> None:
    pixels = np.arange(60, 200, dtype=np.uint8).reshape(10, 14, 1)
    inner = open_array(pixels)
    brighter = whole(recolour(inner, Colours(brightness=0.1), (127.5,), (50,)))
    np.testing.assert_allclose(brighter, pixels + 25.5, atol=0.51)
    harder = whole(recolour(inner, Colours(contrast=0.2), (127.5,), (50,)))
    np.testing.assert_allclose(harder, 127.5 + 1.2 * (pixels - 127.5), atol=0.51)


def test_saturation_and_hue_leave_grey_alone() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0] = 90
    pixels[1] = (200, 100, 100)
    image = open_array(pixels)
    vivid = whole(recolour(image, Colours(saturation=0.5), MEAN, STD))
    turned = whole(recolour(image, Colours(hue=1 / 3), MEAN, STD))
    assert (vivid[0] == 90).all()
    assert (turned[0] == 90).all()
    assert np.ptp(vivid[1].astype(int)) == pytest.approx(150, abs=1)
    assert (turned[1] == (100, 200, 100)).all()


def test_stains_grow_on_tissue_and_not_on_glass() -> None:
    haematoxylin = np.exp(-np.array([[[0.65, 0.70, 0.29]]], np.float32))
    more = restained(haematoxylin, [(0.5, 0.0), (0.0, 0.0), (0.0, 0.0)])
    np.testing.assert_allclose(-np.log(more), 1.5 * -np.log(haematoxylin), rtol=1e-3)
    same = restained(haematoxylin, [(0.0, 0.0), (0.5, 0.0), (0.5, 0.0)])
    np.testing.assert_allclose(same, haematoxylin, rtol=1e-3)
    glass = np.ones((1, 1, 3), np.float32)
    np.testing.assert_allclose(restained(glass, [(0.3, 0.3)] * 3), glass)


def test_stains_are_taken_apart_changed_and_put_together() -> None:
    rows = [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]]  # as published
    stains = np.array([np.divide(row, np.linalg.norm(row)) for row in rows])
    values = np.random.default_rng(0).uniform(0.01, 1.0, (7, 5, 3))
    density = -np.log(values)
    amounts = np.linalg.solve(stains.T, density.reshape(-1, 3).T).T.reshape(7, 5, 3)
    tissue = np.clip((density.mean(axis=2, keepdims=True) - 0.05) / 0.15, 0, 1)
    amounts = amounts * [1.2, 0.9, 1.1] + tissue * [0.1, -0.05, 0.02]
    expected = np.exp(-np.clip(amounts @ stains, 0, np.log(255)))
    told = [(0.2, 0.1), (-0.1, -0.05), (0.1, 0.02)]
    np.testing.assert_allclose(restained(values.astype(np.float32), told), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["slide", "scene", "strong"])
def test_glass_stays_glass(name: str) -> None:
    pixels = np.full((96, 96, 3), (244, 243, 240), np.uint8)
    pixels[24:72, 24:72] = (170, 90, 140)
    slide = open_array(pixels)
    augment = replace(Augment.named(name), crop=1.0, shift=0.0)
    for seed in range(12):
        changed = change(slide, augment, seed)
        seen = foreground(whole(changed), changed)
        assert seen[28:68, 28:68].mean() > 0.99  # blur softens the border
        assert seen.mean() == pytest.approx(0.25, abs=0.05)
        beyond = changed.read(Region(-40, -40, 20, 20), (20, 20))
        assert not foreground(beyond, changed).any()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_other_values_keep_their_range_and_their_holes(dtype: str) -> None:
    chance = np.random.default_rng(0)
    pixels = chance.normal(3000, 200, (50, 60, 4)).astype(dtype)
    pixels[0, 0] = 20_000
    hole = np.nan if dtype == "float32" else 7
    pixels[10:20, 10:20] = hole
    image = open_array(pixels, nodata=hole)
    augment = Augment(brightness=0.2, contrast=0.2, blur=1.0, noise=0.02)
    changed = change(image, augment, 3, mean=(3000.0,) * 4, std=(200.0,) * 4)
    seen = whole(changed)
    assert seen.dtype == np.dtype(dtype)
    assert changed.nodata is image.nodata or changed.nodata == image.nodata
    gone = np.isnan(seen) if dtype == "float32" else seen == hole
    np.testing.assert_array_equal(
        gone.all(axis=2), np.isnan(pixels).all(axis=2) | (pixels == hole).all(axis=2)
    )
    known = seen[30:, 30:].astype(float)
    assert (known != pixels[30:, 30:]).mean() > 0.9
    assert abs(known.mean() - 3000) < 0.5 * 1600
    assert 50 < known.std() < 400
    brighter = recolour(image, Colours(brightness=0.1), (3000.0,) * 4, (200.0,) * 4)
    expected = np.minimum(pixels[30:, 30:] + 160.0, 3800)  # where the usual values end
    np.testing.assert_allclose(whole(brighter)[30:, 30:], expected, atol=1)
    assert whole(brighter)[0, 0, 0] > 15_000  # beyond the usual values nothing is cut off


def test_what_the_reader_fills_in_stays() -> None:
    image = open_array(np.full((10, 10, 3), 100, np.uint8))
    changed = recolour(image, Colours(brightness=0.2), MEAN, STD)
    edge = changed.read(Region(-5, 0, 10, 10), (10, 10), fill=[1, 2, 3], dtype=np.float32)
    assert (edge[:, :5] == (1, 2, 3)).all()
    edge = changed.read(Region(-5, 0, 10, 10), (10, 10), fill=[1.2, 2.4, 3.6])
    assert (edge[:, :5] == (1, 2, 4)).all()
    assert (edge[:, 5:] == 151).all()


def test_levels_are_turned_and_cropped_with_the_image() -> None:
    image = open_array(noise(64, 128))
    facts = facts_of(image)
    levels = (*facts.levels, Level(32, 8, 4.0, 8.0, (8, 8)))
    turned = turn(View(image, replace(facts, levels=levels)), Symmetry(swap=True))
    assert turned.levels[1] == Level(8, 32, 8.0, 4.0, None)


def test_seeds_of_draws_do_not_depend_on_who_asks() -> None:
    seeds = {draw_seed(*key) for key in product((0, 1, -1), range(20), range(50))}
    assert len(seeds) == 3 * 20 * 50
    assert all(0 <= seed < 2**32 for seed in seeds)
    code = "from tnet.datasets.augment import draw_seed; print(draw_seed(5, 6, 7))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == draw_seed(5, 6, 7)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked on this system")
def test_forked_processes_draw_the_same_and_nobody_asks_the_network() -> None:
    code = """
import hashlib, os, socket, sys, urllib.request
def refuse(*arguments, **options): raise SystemExit("asks the network")
socket.socket.connect = socket.create_connection = urllib.request.urlopen = refuse
urllib.request.OpenerDirector.open = refuse
import numpy as np
from tnet.adapters.array import open_array
from tnet.datasets.augment import Augment, augmented, draw_seed
from tnet.geometry import Region
image = open_array(np.arange(3 * 40 * 30, dtype=np.uint8).reshape(40, 30, 3))
def told(*indices):
    for index in indices:
        seed = draw_seed(1, 2, index)
        seen = augmented(image, Augment.named("strong"), seed, mean=(99,) * 3, std=(50,) * 3)
        pixels = seen.read(Region(0, 0, 30, 20), (30, 20))
        print(index, hashlib.sha256(pixels.tobytes()).hexdigest(), flush=True)
assert "albumentations" not in sys.modules
told(0, 1)
assert "albumentations" in sys.modules  # whose own state the children inherit
for indices in ((0, 1), (1, 0)):
    child = os.fork()
    if child == 0:
        told(*indices)
        os._exit(0)
    os.waitpid(child, 0)
"""
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    command = [sys.executable, "-P", "-W", "error::UserWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    said = Counter(done.stdout.splitlines())
    assert list(said.values()) == [3, 3]
    assert len({line.split()[1] for line in said}) == 2


def test_settings_are_plain_and_checked() -> None:
    strong = Augment.named("strong")
    assert Augment(**json.loads(json.dumps(asdict(strong)))) == strong
    with pytest.raises(UsageError, match="must be one of none, light, slide, scene, strong"):
        Augment.named("wild")
    wrong: list[dict[str, Any]] = [
        {"crop": 0.0}, {"crop": 1.5}, {"shift": -0.1}, {"hue": 0.6}, {"blur": float("nan")},
        {"flips": 1}, {"noise": 2},
    ]  # fmt: skip
    for values in wrong:
        with pytest.raises(UsageError, match=f"augment: {next(iter(values))} must be"):
            Augment(**values)


def test_single_numbers_go_before_the_named_ones() -> None:
    changed = Augment.named("scene").but({"flips": False, "shift": 0.2})
    assert changed == replace(Augment.named("scene"), flips=False, shift=0.2)
    assert Augment.named("light").but({}) == Augment.named("light")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shif": 0.1}, "augment: there is no 'shif', only flips, rotate, crop, shift"),
        ({"flips": 0.5}, "augment: flips must be true or false, got 0.5"),
        ({"shift": True}, "augment: shift must be a number, got True"),
        ({"shift": "much"}, "augment: shift must be a number, got 'much'"),
        ({"shift": 3}, "augment: shift must be from 0 to 1, got 3"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Augment().but(changes)
