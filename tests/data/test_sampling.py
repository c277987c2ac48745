from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotune.data.sampling import WindowSampler


def _sampler(
    shapes: Any, masks: Any, rare_class_fraction: float, classes: int = 2
) -> WindowSampler:
    counts = np.array([[(mask == i).sum() for i in range(classes)] for mask in masks])
    positions = [[np.argwhere(mask == i) for i in range(classes)] for mask in masks]
    return WindowSampler(shapes, counts, positions, rare_class_fraction)


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(1, 50), st.integers(0, 10**6))
def test_windows_lie_in_the_scene_and_contain_the_drawn_label(
    shape: tuple[int, int], window: int, seed: int
) -> None:
    mask = np.zeros(shape, dtype=int)
    row, col = seed % shape[0], seed % shape[1]
    mask[row, col] = 1
    sampler = _sampler([shape], [np.where(mask, 1, 9)], 1.0)
    for draw in (sampler.draw_around_label, sampler.draw_uniform):
        _, drawn = draw(np.random.default_rng(seed), window)
        assert (drawn.height, drawn.width) == (window, window)
        for start, length in ((drawn.row, shape[0]), (drawn.col, shape[1])):
            assert 0 <= start <= max(length - window, 0)
    _, drawn = sampler.draw_around_label(np.random.default_rng(seed), window)
    assert 0 <= row - drawn.row < window and 0 <= col - drawn.col < window


def test_classes_are_drawn_by_the_inverse_square_root_of_their_frequency() -> None:
    mask = np.zeros((100, 100), dtype=int)
    mask[50, 40:44] = 1  # 4 of 10000: 50 times as likely by pixel
    sampler = _sampler([(100, 100)], [mask], 1.0)
    assert sampler.class_weights[1] / sampler.class_weights[0] == pytest.approx(np.sqrt(9996 / 4))
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        _, w = sampler.draw(rng, 9)
        hits += mask[w.row : w.row + 9, w.col : w.col + 9].any()
    assert hits / 500 > 0.93


def test_rare_class_fraction_is_the_fraction_of_windows_around_a_label() -> None:
    mask = np.full((300, 300), 9)
    mask[0, 0] = 1
    sampler = _sampler([(300, 300)], [mask], 0.25)
    rng = np.random.default_rng(0)
    fraction = np.mean([sampler.draw(rng, 3)[1][:2] == (0, 0) for _ in range(2000)])
    assert 0.2 < fraction < 0.3


def test_scenes_are_drawn_by_area_or_by_pixels_of_the_class() -> None:
    small, large = np.zeros((10, 10), dtype=int), np.zeros((30, 10), dtype=int)
    small[:2, :3], large[0, :2] = 1, 1
    sampler = _sampler([(10, 10), (30, 10)], [small, large], 0.5)
    assert sampler.area_weights.tolist() == [0.25, 0.75]
    assert sampler.scene_weights[:, 1].tolist() == [0.75, 0.25]


def test_absent_classes_are_never_drawn() -> None:
    sampler = _sampler([(9, 9)], [np.zeros((9, 9), dtype=int)], 1.0, classes=5)
    assert sampler.classes.tolist() == [0]
    assert sampler.draw(np.random.default_rng(0), 4)[0] == 0
