"""One scale of colours for all heat maps: what it shows, and that pages and pictures agree."""

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from viewer_server import walk_of

from tnet.adapters.exports import png
from tnet.adapters.exports.colours import OPACITY, Scale
from tnet.adapters.exports.heat import Heat
from tnet.geometry import Region
from tnet.maps import KINDS, Kind
from tnet.record import Chances, Walk
from tnet.scripts.viewer.heat import heat_legend, heat_png, kinds_of

GROUND = (236, 236, 238)


def a_map(*values: float) -> NDArray[np.float32]:
    return np.array([values], np.float32)


def two_glimpses() -> Walk:
    walk = walk_of("a", (100, 50), Region(0, 0, 20, 10), Region(10, 0, 20, 10), logit=3.0)
    said = (0.5, 0.25, 0.25, None)
    return replace(
        walk,
        glimpses=(*walk.glimpses[:2], replace(walk.glimpses[2], weight=0.1)),
        grids=(Chances(0, 1, 4, 0.25, said),),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_was_looked_at_is_nothing(kind: Kind) -> None:
    values = a_map(np.nan, 0.0, 0.25, 1.0)
    scale = Scale.of(kind, values)
    for picture, opacity in ((scale.indexed(values), 255), (scale.painted(values), 153)):
        assert np.asarray(picture.convert("RGBA"))[0, :, 3].tolist() == [0, *[opacity] * 3]
    nothing = a_map(np.nan)
    assert (np.asarray(Scale.of(kind, nothing).painted(nothing))[..., 3] == 0).all()


def test_for_and_against() -> None:
    values = a_map(-2.0, 0.0, 0.5, 2.0)
    against, neither, little, much = Scale.of("contribution", values).colours(values)[0].astype(int)
    assert against[2] > against[0]  # blue
    assert neither.min() > 240  # white
    assert much[0] > much[2]  # vermilion
    np.testing.assert_allclose(little, (neither + much) / 2, atol=12)  # the root of a quarter


def test_the_curves() -> None:
    ends = a_map(0.0, 1.0)
    halfway = Scale(0, 1, "linear").colours(a_map(0.5))
    assert (Scale.of("weight", ends).colours(a_map(0.25)) == halfway).all()
    assert (Scale.of("probability", ends).colours(a_map(10**-1.5)) == halfway).all()
    assert (Scale(3, 5).colours(a_map(4.0)) == halfway).all()
    assert (Scale(3, 3).colours(a_map(3.0)) == Scale(0, 1).colours(a_map(0.0))).all()


def test_overlapping_glimpses_add_up() -> None:
    values = Heat("weight").map(two_glimpses(), (50, 25))
    np.testing.assert_allclose(values[0, [0, 5, 10]], [1 / 3, 1 / 3 + 0.1, 0.1], rtol=1e-6)
    assert np.isnan(values[0, 15])
    assert np.isnan(values[5:]).all()
    np.testing.assert_allclose(Heat("contribution", 0).map(two_glimpses(), (50, 25))[0, 5], 2.0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_walk_has_the_same_colours_everywhere(kind: Kind) -> None:
    walk, heat = two_glimpses(), Heat(kind, 0, 100)
    assert kind in kinds_of(walk)
    page = Image.open(io.BytesIO(heat_png(walk, heat))).convert("RGBA")
    picture = Image.open(io.BytesIO(png.export(walk, heat)))
    layer = Image.new("RGBA", page.size, GROUND)
    page.putalpha(page.getchannel("A").point([round(a * OPACITY) for a in range(256)]))
    layer.alpha_composite(page)
    wanted = np.asarray(layer.convert("RGB"))
    shown = np.asarray(picture.crop((0, 0, 100, 50)))
    inside = np.s_[2:8, [5, 15, 25, 60, 90]]  # beside the glimpses' frames
    np.testing.assert_array_equal(shown[inside], wanted[inside])


def test_the_legend_says_what_the_colours_mean() -> None:
    walk = two_glimpses()
    said = heat_legend(walk, Heat("contribution", "calm"))
    assert said["title"] == "contribution to the logit of calm"
    assert said["ends"] == ("-2", "+2")
    assert said["colours"][0] == "#0072b2"
    assert heat_legend(walk, Heat("weight"))["ends"] == ("0", "0.433")


def test_a_glimpse_smaller_than_a_pixel_is_on_the_scale() -> None:
    walk = walk_of("a", (100_000, 100_000), Region(5, 5, 20, 20), Region(5e4, 5e4, 3e4, 3e4))
    assert heat_legend(walk, Heat("weight", side=100))["ends"] == ("0", "0.333")


def test_the_first_look_is_no_closer_look() -> None:
    walk = walk_of("a", (100, 50))
    assert heat_legend(walk, Heat("weight"))["ends"] is None
    page = Image.open(io.BytesIO(heat_png(walk, Heat("weight")))).convert("RGBA")
    assert (np.asarray(page)[..., 3] == 0).all()
