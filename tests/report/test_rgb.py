"""RGB images for display."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotune.report.rgb import to_rgb
from geotune.utils.rgb_bands import shown_bands


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (["B02", "B03", "B04", "B08", "B11"], (2, 1, 0)),
        (["blue", "green", "red", "nir", "swir1", "swir2"], (2, 1, 0)),
        (["R", "G", "B", "NIR"], (0, 1, 2)),
        (["B03", "B04", "B08"], (2, 1, 0)),
        (["green", "red", "nir"], (2, 1, 0)),
        (["VV", "VH", "DEM", "slope"], (0, 1, 2)),
        (["VV", "VH"], (0, 0, 0)),
        (["thermal"], (0, 0, 0)),
    ],
)
def test_bands_are_chosen_by_name(bands: list[str], expected: tuple[int, int, int]) -> None:
    assert shown_bands(bands) == expected


def test_strongest_band_determines_the_colour() -> None:
    image = np.zeros((3, 20, 20), dtype=np.float32)
    image[0, :, :10] = 1000  # B02, blue, on the left
    image[2, :, 10:] = 1000  # B04, red, on the right
    rgb = to_rgb(image, ["B02", "B03", "B04"])
    assert rgb.dtype == np.uint8
    assert rgb.shape == (20, 20, 3)
    assert rgb[5, 2].tolist() == [0, 0, 255]
    assert rgb[5, 17].tolist() == [255, 0, 0]


def test_no_data_is_a_checkerboard() -> None:
    image = np.random.default_rng(0).random((3, 32, 32)).astype(np.float32)
    image[1, :16] = np.nan
    image[0, 20, 20] = np.inf
    rgb = to_rgb(image, ["R", "G", "B"])
    empty = rgb[:16]
    assert (empty == empty[..., :1]).all(), "grey"
    assert set(np.unique(empty)) == {150, 185}
    assert rgb[0, 0, 0] != rgb[0, 8, 0]
    assert rgb[20, 20, 0] in (150, 185)
    assert len(np.unique(rgb[16:])) > 50


def test_images_without_data_or_contrast() -> None:
    assert set(np.unique(to_rgb(np.full((2, 9, 9), np.nan), ["a", "b"]))) == {150, 185}
    flat = to_rgb(np.full((3, 4, 4), 7.0), ["R", "G", "B"])
    assert len(np.unique(flat)) == 1
    assert 50 < flat[0, 0, 0] < 205


def test_only_natural_colours_share_a_stretch() -> None:
    ramp = np.linspace(0, 1, 400).reshape(20, 20)
    image = np.stack([ramp, ramp * 10, ramp * 100])
    natural, other = to_rgb(image, ["R", "G", "B"]), to_rgb(image, ["x", "y", "z"])
    assert natural[..., 0].max() < 30 < 250 < natural[..., 2].max()
    assert other[..., 0].max() == other[..., 2].max() == 255


@given(st.floats(0.01, 1000), st.floats(-1000, 1000), st.integers(0, 5))
def test_result_is_independent_of_units(scale: float, offset: float, seed: int) -> None:
    image = np.random.default_rng(seed).random((3, 12, 12))
    expected = to_rgb(image, ["R", "G", "B"]).astype(int)
    scaled = to_rgb(image * scale + offset, ["R", "G", "B"]).astype(int)
    assert np.abs(expected - scaled).max() <= 1


def test_wrong_number_of_bands_raises() -> None:
    with pytest.raises(ValueError, match="does not have the bands"):
        to_rgb(np.zeros((3, 4, 4)), ["R", "G"])
