"""The validation windows as PNGs in the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from geotune.report.content import Example
from geotune.report.pictures import MAX_SIDE, MISTAKE, class_map, panels

Windows = Callable[..., Example]
COLORS = [(68, 78, 92), (255, 196, 0)]


def decode(address: str) -> NDArray[np.uint8]:
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_pngs_hold_exactly_the_classes_colours_and_the_image(window: Windows) -> None:
    shown = window()
    made = panels(shown, COLORS)
    assert (decode(made.image) == shown.image).all()
    assert (decode(made.prediction) == np.array(COLORS)[shown.prediction]).all()
    counted = shown.label != 255
    assert (decode(made.label)[counted] == np.array(COLORS)[shown.label[counted]]).all()


def test_what_is_not_counted_is_hatched_in_two_greys() -> None:
    shown = class_map(np.full((16, 16), 255), COLORS)
    assert {tuple(color) for color in shown.reshape(-1, 3).tolist()} == {
        (236, 236, 236),
        (140, 140, 140),
    }


def test_mistakes_are_red_where_labels_and_prediction_differ_and_nowhere_else(
    window: Windows,
) -> None:
    shown = window()
    shown.prediction[-4:, -4:] = 1  # not counted: no mistake
    made = panels(shown, COLORS)
    red = (decode(made.mistakes) == MISTAKE).all(axis=2)
    expected = np.zeros((32, 32), dtype=bool)
    expected[4:10, 16:20] = True
    assert (red == expected).all()
    assert made.wrong == pytest.approx(24 / (32 * 32 - 64))


@pytest.mark.parametrize("shape", [(1000, 700), (321, 321), (2, 1500)])
def test_long_sides_shrink_and_a_single_mistake_stays(
    shape: tuple[int, int], window: Windows
) -> None:
    label = np.zeros(shape, dtype=np.int64)
    prediction = label.copy()
    prediction[1, 301] = 1
    image = np.full((*shape, 3), 90, dtype=np.uint8)
    made = panels(replace(window(), image=image, label=label, prediction=prediction), COLORS)
    sizes = {decode(p).shape for p in (made.image, made.label, made.prediction, made.mistakes)}
    assert len(sizes) == 1
    if min(shape) > 10:
        assert all(max(size) <= MAX_SIDE for size in sizes)
    assert (decode(made.mistakes) == MISTAKE).all(axis=2).sum() == 1


def test_a_window_without_labels_has_no_share_of_mistakes(window: Windows) -> None:
    shown = window()
    shown.label[:] = 255
    assert math.isnan(panels(shown, COLORS).wrong)


def test_sizes_that_differ_are_refused(window: Windows) -> None:
    with pytest.raises(ValueError, match=r"durban \(0, 128\): image"):
        panels(replace(window(), prediction=np.zeros((31, 32), dtype=np.int64)), COLORS)
