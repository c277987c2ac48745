"""The validation windows as small PNGs that stand in the page itself."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from geotune.types import IGNORE
from geotune.utils.colors import Color

Picture = NDArray[np.uint8]
"""`(H, W, 3)`, red, green and blue."""

MAX_SIDE = 320
"""Longer sides are shrunk by a whole number: the page stays a few megabytes at most."""

MISTAKE: Color = (226, 45, 45)
_HATCH = ((236, 236, 236), (140, 140, 140))


def shrinking(shape: Sequence[int]) -> int:
    """By what whole number an array `(H, W, ...)` is shrunk."""
    return min(math.ceil(max(shape[:2]) / MAX_SIDE), *shape[:2])


def shrunk(picture: Picture) -> Picture:
    """A picture `(H, W, 3)` whose longer side is at most about `MAX_SIDE`."""
    step = shrinking(picture.shape)
    small: Picture = blocks(picture, step).mean(axis=(1, 3)).round().astype(np.uint8)
    return small


def value_map(values: NDArray[np.floating], low: float, high: float) -> Picture:
    """Numbers `(H, W)` from dark (`low`) to bright (`high`); NaN is hatched in grey."""
    return _colored("viridis", values, low, high)


def difference_map(values: NDArray[np.floating], most: float) -> Picture:
    """Differences `(H, W)`: blue below zero, red above, full at `most`; NaN is hatched in grey."""
    return _colored("RdBu_r", values, -most, most)


def _colored(name: str, values: NDArray[np.floating], low: float, high: float) -> Picture:
    step = shrinking(values.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a block without any data
        mean = np.nanmean(blocks(values, step), axis=(1, 3))
    missing = np.isnan(mean)
    scaled = np.where(missing, 0.0, (mean - low) / ((high - low) or 1.0)).clip(0, 1)
    rgb: Picture = (255 * colormaps[name](scaled)[..., :3]).round().astype(np.uint8)
    rgb[missing] = _hatching(mean.shape)[missing]
    return rgb


def dots(image: Picture, places: NDArray[np.integer]) -> Picture:
    """The picture pale and grey, with a red cross where `places` `(H, W)` is not 0."""
    step = shrinking(places.shape)
    there = blocks(places, step).max(axis=(1, 3)) > 0
    spread = np.pad(there, 1)
    wide = there | spread[:-2, 1:-1] | spread[2:, 1:-1] | spread[1:-1, :-2] | spread[1:-1, 2:]
    return overlay_errors(shrunk(image), wide)


def class_map(classes: NDArray[np.integer], colors: Sequence[Color]) -> NDArray[np.uint8]:
    """Class indices `(H, W)` as colours `(H, W, 3)`; what is not counted is hatched in grey."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colors)] = colors
    rgb = table[classes.astype(np.int64)]
    ignored = classes == IGNORE
    rgb[ignored] = _hatching(classes.shape)[ignored]
    return rgb


def _hatching(shape: tuple[int, ...]) -> Picture:
    diagonal = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 8 < 2
    hatched: Picture = np.array(_HATCH, dtype=np.uint8)[diagonal.astype(int)]
    return hatched


def overlay_errors(picture: NDArray[np.uint8], wrong: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture pale and grey, with mistakes in red."""
    grey = 130 + picture.mean(axis=2) * (110 / 255)
    rgb = np.repeat((grey // 4 * 4).astype(np.uint8)[:, :, None], 3, axis=2)
    rgb[wrong] = MISTAKE
    return rgb


def subsample(array: NDArray[np.integer], step: int) -> NDArray[np.integer]:
    """Every `step`-th pixel, as many as `blocks` has blocks."""
    height, width = (side // step for side in array.shape)
    return array[: height * step : step, : width * step : step]


def blocks(array: NDArray[Any], step: int) -> NDArray[Any]:
    """`(H, W, ...)` as `(H // step, step, W // step, step, ...)`."""
    height, width = (side // step for side in array.shape[:2])
    cut = array[: height * step, : width * step]
    return cut.reshape(height, step, width, step, *array.shape[2:])


def png(rgb: NDArray[np.uint8]) -> str:
    """A picture as a `data:` address."""
    buffer = io.BytesIO()
    packed = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    colors, where = np.unique(packed, return_inverse=True)
    if len(colors) <= 256:
        picture = Image.fromarray(where.reshape(packed.shape).astype(np.uint8))
        picture.putpalette(b"".join(int(color).to_bytes(3, "big") for color in colors))
    else:
        picture = Image.fromarray(rgb)
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
