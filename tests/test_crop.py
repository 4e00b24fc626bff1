"""A part of an image as an image of its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tnet.adapters import crop
from tnet.adapters.array import open_array
from tnet.geometry import Region

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@given(st.integers(-8, 50), st.integers(-8, 30), st.integers(1, 30), st.integers(1, 30))
def test_a_crop_is_the_slice_with_background_around(x: int, y: int, w: int, h: int) -> None:
    part = crop(open_array(PIXELS), Region(x, y, w, h))
    assert (part.width, part.height) == (w, h)
    whole = np.pad(PIXELS, ((20, 60), (20, 60), (0, 0)), constant_values=255)
    wanted = whole[y + 20 : y + 20 + h, x + 20 : x + 20 + w]
    np.testing.assert_array_equal(part.read(Region(0, 0, w, h), (w, h)), wanted)
    framed = part.read_many([Region(-2, -2, w + 4, h + 4)], (w + 4, h + 4))[0]
    np.testing.assert_array_equal(framed[2:-2, 2:-2], wanted)
    framed[2:-2, 2:-2] = 255
    assert (framed == 255).all()


def test_what_is_valid_of_a_crop_stays_inside_it() -> None:
    part = crop(open_array(PIXELS), Region(10, 10, 20, 20))
    whole = Region(-10, -10, 40, 40)
    seen = part.read(whole, (40, 40), valid=Region(5, -10, 90, 90))
    wanted = np.full((40, 40, 3), 255, np.uint8)
    wanted[10:30, 15:30] = PIXELS[10:30, 15:30]
    np.testing.assert_array_equal(seen, wanted)
    nested = crop(part, Region(-5, -5, 10, 10))
    for image in (part, nested):
        nothing = image.read(whole, (40, 40), valid=Region(25, 0, 5, 5), fill=7)
        assert (nothing == 7).all()


def test_a_crop_moves_the_transform_and_asks_for_whole_pixels() -> None:
    scene = open_array(PIXELS)
    scene.transform = (10.0, 0.0, 500.0, 0.0, -10.0, 900.0)
    part = crop(scene, Region(3, 4, 5, 6))
    assert part.transform == (10.0, 0.0, 530.0, 0.0, -10.0, 860.0)
    with pytest.raises(ValueError, match="whole pixels"):
        crop(scene, Region(0.5, 0, 5, 5))
