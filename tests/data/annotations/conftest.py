"""Fixtures: small images, and opening the annotations that a test writes next to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geotune.data.annotations.annotated_scenes import open_annotated_scenes
from geotune.data.annotations.base import AnnotationOptions
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.scene import Scene

CLASSES = ["ship", "crane"]
SHAPE = 60, 80


@pytest.fixture
def images(write_raster: Any) -> dict[str, RasterSource]:
    """Three images of 60 x 80 pixels, `a.tif` to `c.tif`, by name."""
    ones = np.ones((1, *SHAPE), dtype="uint8")
    return {name: open_raster(write_raster(f"{name}.tif", ones)) for name in "abc"}


@pytest.fixture
def opened(tmp_path: Path, images: dict[str, RasterSource]) -> Callable[..., list[Scene]]:
    """Opens the images in the test's folder with the labels of a pattern."""

    def read(
        labels: str, scenes: str = "*.tif", classes: list[str] = CLASSES, **options: Any
    ) -> list[Scene]:
        file_options = {
            key: options.pop(key)
            for key in ("format", "missing_labels", "class_values")
            if key in options
        }
        return open_annotated_scenes(
            scenes=str(tmp_path / scenes),
            labels=str(tmp_path / labels),
            classes=classes,
            options=AnnotationOptions(**options),
            **file_options,
        )

    return read
