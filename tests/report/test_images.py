"""Pictures of windows as PNGs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from geotune.report.images import (
    ERROR_COLOR,
    MAX_SIDE,
    class_map,
    difference_map,
    dots,
    png,
    value_map,
)
from geotune.report.tasks.segment_page import draw_masks

Masks = Callable[..., tuple[Any, Any, Any]]
COLORS = ((68, 78, 92), (255, 196, 0))


def decode(address: str) -> NDArray[np.uint8]:
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_pngs_reproduce_image_and_class_colours(segmented: Masks) -> None:
    image, label, prediction = segmented()
    _, made = draw_masks(image, label, prediction, COLORS)
    assert (decode(png(made["image"])) == image).all()
    assert (decode(png(made["prediction"])) == np.array(COLORS)[prediction]).all()
    counted = label != 255
    assert (decode(png(made["label"]))[counted] == np.array(COLORS)[label[counted]]).all()


def test_ignored_pixels_are_hatched_in_two_greys() -> None:
    shown = class_map(np.full((16, 16), 255), COLORS)
    hatched = value_map(np.full((16, 16), np.nan), 0, 1)
    for picture in (shown, hatched):
        assert {tuple(color) for color in picture.reshape(-1, 3).tolist()} == {
            (236, 236, 236),
            (140, 140, 140),
        }


def test_only_errors_are_red(
    segmented: Masks,
) -> None:
    image, label, prediction = segmented()
    prediction[-4:, -4:] = 1  # ignored: no error
    share, made = draw_masks(image, label, prediction, COLORS)
    red = (made["errors"] == ERROR_COLOR).all(axis=2)
    expected = np.zeros((32, 32), dtype=bool)
    expected[4:10, 16:20] = True
    assert (red == expected).all()
    assert share == pytest.approx(24 / (32 * 32 - 64))


@pytest.mark.parametrize("shape", [(1000, 700), (321, 321), (2, 1500)])
def test_shrinking_keeps_a_single_error_visible(shape: tuple[int, int]) -> None:
    label = np.zeros(shape, dtype=np.int64)
    prediction = label.copy()
    prediction[1, 301] = 1
    image = np.full((*shape, 3), 90, dtype=np.uint8)
    _, made = draw_masks(image, label, prediction, COLORS)
    sizes = {picture.shape for picture in made.values()}
    assert len(sizes) == 1
    if min(shape) > 10:
        assert all(max(size) <= MAX_SIDE for size in sizes)
    assert (made["errors"] == ERROR_COLOR).all(axis=2).sum() == 1


def test_error_share_without_labels_is_nan(segmented: Masks) -> None:
    image, label, prediction = segmented()
    label[:] = 255
    assert math.isnan(draw_masks(image, label, prediction, COLORS)[0])


def test_different_sizes_raise(segmented: Masks) -> None:
    image, label, _ = segmented()
    with pytest.raises(ValueError, match=r"image \(32, 32, 3\), label"):
        draw_masks(image, label, np.zeros((31, 32), dtype=np.int64), COLORS)


def test_value_and_difference_map_colours() -> None:
    ramp = value_map(np.linspace(0, 1, 64).reshape(8, 8), 0, 1).astype(int).sum(axis=2)
    assert ramp[0, 0] < ramp[4, 0] < ramp[7, 7], "viridis grows brighter"
    below, none, above = difference_map(np.array([[-1.0, 0.0, 1.0]]), 1)[0].astype(int)
    assert below[2] > below[0] and above[0] > above[2] and none.min() > 240


def test_each_object_is_a_red_cross() -> None:
    counts = np.zeros((640, 640), dtype=np.int64)
    counts[101, 33] = 2
    shown = dots(np.full((640, 640, 3), 90, dtype=np.uint8), counts)
    assert shown.shape == (320, 320, 3)
    assert (shown[50, 16] == ERROR_COLOR).all()
    assert (shown == ERROR_COLOR).all(axis=2).sum() == 5
