"""Bands side by side and bands apart hold the same values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tnet.adapters.interleaving import interleaved, planar

DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8")


@given(
    st.sampled_from(DTYPES),
    st.tuples(st.integers(1, 6), st.integers(1, 20), st.integers(1, 20)),
    st.integers(0, 99),
)
def test_there_and_back(dtype: str, shape: tuple[int, int, int], seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    wanted = np.moveaxis(values, 0, -1)
    pixels = interleaved(values)
    assert pixels.dtype == values.dtype
    np.testing.assert_array_equal(pixels, wanted)
    back = planar(pixels)
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(planar(wanted), values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_into_a_buffer(dtype: str) -> None:
    values = np.arange(3 * 8 * 9).reshape(3, 8, 9).astype(dtype)
    batch = np.zeros((2, 8, 9, 3), dtype)
    interleaved(values, batch[1])
    np.testing.assert_array_equal(batch[1], np.moveaxis(values, 0, -1))
    assert not batch[0].any()
    wide = np.zeros((8, 18, 3), dtype)
    interleaved(values[:, :, 2:], wide[:, ::2][:, :7])
    np.testing.assert_array_equal(wide[:, :14:2], np.moveaxis(values[:, :, 2:], 0, -1))


def test_many_bands() -> None:
    values = np.arange(600 * 2 * 3, dtype=np.uint16).reshape(600, 2, 3)
    np.testing.assert_array_equal(planar(interleaved(values)), values)
