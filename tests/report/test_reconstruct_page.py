"""Pictures of masked reconstruction."""

from __future__ import annotations

import numpy as np

from geotune.data.labels.pixel_data import HIDDEN, NO_DATA, VISIBLE, PixelData
from geotune.report.tasks.base import DisplayedWindow
from geotune.report.tasks.reconstruct_page import HIDDEN_GREY, PAGE


def test_hidden_patches_are_grey_and_then_predicted() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(6, 8, 8)).astype(np.float32)  # three bands of two dates
    states = np.full((6, 8, 8), VISIBLE, dtype=np.uint8)
    states[:, :4, :4] = HIDDEN
    states[:, :, 7] = NO_DATA
    shown = DisplayedWindow(
        image=np.zeros((8, 8, 3), dtype=np.uint8),
        target=PixelData(states),
        prediction=np.stack([image.copy(), image]),
        score=-0.25,
        classes=("image",),
        colors=(),
        bands=("red", "green", "blue"),
    )
    caption, pictures = PAGE.draw(shown)
    assert "0.25" in caption
    whole, visible, guessed, error = pictures.values()
    assert (visible[:4, :4] == HIDDEN_GREY).all()
    assert (visible[4:] == whole[4:]).all() and (guessed == whole).all()
    assert (error[:4, :4] == error[0, 0]).all()  # a perfect prediction
    shown.prediction[0] += 100.0
    _, pictures = PAGE.draw(shown)
    whole, guessed = pictures["image"], pictures["reconstruction"]
    assert not (guessed[:4, :4] == whole[:4, :4]).all() and (guessed[4:] == whole[4:]).all()
