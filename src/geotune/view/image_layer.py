"""The image of a scene as a layer."""

from __future__ import annotations

import math

import numpy as np

from geotune.data.raster.source import RasterSource
from geotune.report.rgb import Stretch
from geotune.utils.rgb_bands import shown_bands
from geotune.view.layers import RasterLayer, raster_reader
from geotune.view.styles import ImageStyle, Values

SAMPLE = 512
"""Values of a whole raster are sampled at most this many times per side, for its contrast."""


def image_layer(source: RasterSource) -> RasterLayer:
    """The image in natural colours if it has them; a click shows the values of all bands.

    Raises `GeotuneError` if it cannot be read.
    """
    names = source.bands
    drawn = list(dict.fromkeys(names[i] for i in shown_bands(names)))
    shown = source.select(drawn)
    first, second, third = (drawn.index(names[i]) for i in shown_bands(names))
    sample = sample_values(shown)
    style = ImageStyle(
        Stretch.of(sample[[first, second, third]], names), (first, second, third), names
    )
    details = raster_reader(source)
    return RasterLayer("image", "image", raster_reader(shown), style, read_details=details)


def sample_values(source: RasterSource) -> Values:
    """About `SAMPLE` x `SAMPLE` values of each band of a raster, of several dates of the last."""
    step = max(1, math.ceil(max(source.shape) / SAMPLE))
    image = source.read_overview(step)
    return image[:, -1] if image.ndim == 4 else image


def value_limits(sample: Values) -> tuple[float, float]:
    """The 1st and 99th percentile of the values with data; 0 and 1 without any."""
    known = sample[np.isfinite(sample)]
    low, high = np.percentile(known, (1, 99)).tolist() if known.size else (0.0, 1.0)
    return (low, high) if low < high else (low, low + 1)
