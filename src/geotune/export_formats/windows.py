"""Windows of imagery, by which an exported file is compared and calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from geotune.adapter_config import AdapterConfig
from geotune.data.raster.metadata import time_and_location
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.types import model_inputs

Inputs = Mapping[str, NDArray[np.float32]]

RANDOM_WINDOWS = 4
COARSEST = 4
"""Random windows are sums of noise at this many resolutions, so that they have edges and areas."""


def random_windows(config: AdapterConfig, example: Inputs) -> list[Inputs]:
    """Windows with the training images' mean and deviation of each band, one with missing pixels.

    `example` are inputs of one window, whose other inputs are kept.
    """
    images = config.prediction.images
    normalization = config.normalization
    mean = np.array(normalization.offset if images is None else images.mean)
    std = np.array(normalization.scale if images is None else images.std)
    rng = np.random.default_rng(0)
    windows: list[Inputs] = []
    for number in range(RANDOM_WINDOWS):
        shape = example["images"].shape
        noise = np.zeros(shape)
        for level in range(COARSEST):
            step = 2 ** (2 * level)
            small = (*shape[:-2], -(-shape[-2] // step), -(-shape[-1] // step))
            coarse = rng.standard_normal(small).repeat(step, -2).repeat(step, -1)
            noise += coarse[..., : shape[-2], : shape[-1]] / COARSEST**0.5
        by_band = (1, -1) + (1,) * (len(shape) - 2)
        values = (noise * std.reshape(by_band) + mean.reshape(by_band)).astype(np.float32)
        if number == RANDOM_WINDOWS - 1:
            values[..., : shape[-2] // 3, : shape[-1] // 2] = np.nan
        windows.append({**example, "images": values})
    return windows


def scene_windows(
    sources: Mapping[str, RasterSource],
    bands: Sequence[str],
    window: int,
    metadata: Sequence[str],
    count: int,
) -> list[Inputs]:
    """Up to `count` windows, evenly over the scenes; raises `GeotuneError` if none has data."""
    places = []
    for source in sources.values():
        chosen = source.select(bands)
        height, width = chosen.shape
        places += [
            (chosen, Window(row, col, window, window))
            for row in range(0, max(1, height - window + 1), window)
            for col in range(0, max(1, width - window + 1), window)
        ]
    step = max(1, len(places) // count)
    windows: list[Inputs] = []
    for source, place in places[::step][:count]:
        pixels = source.read(place)
        if np.isnan(pixels).all():
            continue
        when, where = time_and_location(source, place, metadata)
        inputs = model_inputs(pixels[None], [when], [where])
        windows.append({name: x.numpy() for name, x in inputs.items()})
    if not windows:
        raise GeotuneError(
            f"--scenes: no window of {window} x {window} pixels has data; name other scenes",
            code="option-invalid",
        )
    return windows
