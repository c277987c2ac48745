"""Pictures of windows as small PNGs embedded in the page."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from geotune.boxes.oriented import as_oriented, centres, corners
from geotune.types import IGNORE
from geotune.utils.colors import Color

Picture = NDArray[np.uint8]
"""`(H, W, 3)`, red, green and blue."""

MAX_SIDE = 320
"""Longer sides are shrunk by an integer factor, to keep the page below a few megabytes."""

ERROR_COLOR: Color = (226, 45, 45)
_HATCH = ((236, 236, 236), (140, 140, 140))


def shrink_factor(shape: Sequence[int]) -> int:
    """The integer factor by which an array `(H, W, ...)` is shrunk."""
    return min(math.ceil(max(shape[:2]) / MAX_SIDE), *shape[:2])


def shrunk(picture: Picture) -> Picture:
    """Average-pool a picture `(H, W, 3)` to at most about `MAX_SIDE` per side."""
    step = shrink_factor(picture.shape)
    small: Picture = blocks(picture, step).mean(axis=(1, 3)).round().astype(np.uint8)
    return small


VALUE_KEY = (
    (
        "linear-gradient(90deg, #440154, #3b528b, #21918c, #5ec962, #fde725)",
        "lowest to highest value",
    ),
    ("linear-gradient(90deg, #053061, #f7f7f7, #67001f)", "error: too low, none, too high"),
)
"""Colours of `value_map` and `difference_map` as CSS, and their meaning."""


def value_map(values: NDArray[np.floating], low: float, high: float) -> Picture:
    """Map values `(H, W)` to colours from dark (`low`) to bright (`high`); NaN is hatched."""
    return _colored("viridis", values, low, high)


def difference_map(values: NDArray[np.floating], limit: float) -> Picture:
    """Map differences `(H, W)` to blue (`-limit`) through red (`limit`); NaN is hatched."""
    return _colored("RdBu_r", values, -limit, limit)


def _colored(name: str, values: NDArray[np.floating], low: float, high: float) -> Picture:
    step = shrink_factor(values.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a block without any data
        mean = np.nanmean(blocks(values, step), axis=(1, 3))
    missing = np.isnan(mean)
    scaled = np.where(missing, 0.0, (mean - low) / ((high - low) or 1.0)).clip(0, 1)
    rgb: Picture = (255 * colormaps[name](scaled)[..., :3]).round().astype(np.uint8)
    rgb[missing] = _hatching(mean.shape)[missing]
    return rgb


def dots(image: Picture, counts: NDArray[np.integer]) -> Picture:
    """A pale grey picture with a red cross at each nonzero pixel of `counts` `(H, W)`."""
    step = shrink_factor(counts.shape)
    centres = blocks(counts, step).max(axis=(1, 3)) > 0
    padded = np.pad(centres, 1)
    crosses = centres | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return overlay_errors(shrunk(image), crosses)


def class_map(classes: NDArray[np.integer], colors: Sequence[Color]) -> NDArray[np.uint8]:
    """Class indices `(H, W)` as colours `(H, W, 3)`; ignored pixels are hatched in grey."""
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


def overlay_errors(picture: NDArray[np.uint8], errors: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A pale grey picture with errors in red."""
    grey = 130 + picture.mean(axis=2) * (110 / 255)
    rgb = np.repeat((grey // 4 * 4).astype(np.uint8)[:, :, None], 3, axis=2)
    rgb[errors] = ERROR_COLOR
    return rgb


def subsample(array: NDArray[np.integer], step: int) -> NDArray[np.integer]:
    """Every `step`-th pixel, one per block of `blocks`."""
    height, width = (side // step for side in array.shape)
    return array[: height * step : step, : width * step : step]


def blocks(array: NDArray[Any], step: int) -> NDArray[Any]:
    """Reshape `(H, W, ...)` to `(H // step, step, W // step, step, ...)`."""
    height, width = (side // step for side in array.shape[:2])
    cut = array[: height * step, : width * step]
    return cut.reshape(height, step, width, step, *array.shape[2:])


def boxes_on(
    image: Picture, boxes: Mapping[Color, NDArray[Any]], *, points: bool, scale: float = 1.0
) -> Picture:
    """Draw boxes `(N, 4)` or `(N, 5)` on an image `(H, W, 3)`, by colour.

    Args:
        image: shrunk if it is large, enlarged if it is small, so that lines stay thin.
        boxes: in pixels of the image divided by `scale`.
        points: draw the centres only.
        scale: pixels of the image per pixel of the boxes.
    """
    factor = max(1, MAX_SIDE // max(image.shape[:2]))
    shown = shrunk(image) if factor == 1 else image.repeat(factor, axis=0).repeat(factor, axis=1)
    scale *= shown.shape[1] / image.shape[1]
    picture = Image.fromarray(shown)
    draw = ImageDraw.Draw(picture)
    for color, group in boxes.items():
        if points:
            for x, y in centres(group) * scale:
                draw.ellipse((x - 4, y - 4, x + 4, y + 4), outline=color, width=2)
            continue
        for outline in corners(as_oriented(group)) * scale:
            draw.line([tuple(p) for p in (*outline, outline[0])], fill=color, width=2)
    return np.asarray(picture)


def classes_on(
    image: Picture,
    classes: NDArray[np.integer],
    colors: Sequence[Color],
    plain: int | None,
    opacity: float,
) -> Picture:
    """An image `(H, W, 3)` with class indices `(H, W)` as tints; ignored pixels are hatched.

    Pixels of the class `plain`, such as the background, are not tinted.
    """
    tint = class_map(classes, colors).astype(np.float32)
    weight = np.where(classes == IGNORE, 0.35, opacity)[..., None]
    if plain is not None:
        weight = weight * (classes != plain)[..., None]
    drawn: Picture = np.round(image * (1 - weight) + tint * weight).astype(np.uint8)
    return drawn


def jpeg(rgb: Picture) -> str:
    """Encode a photograph as a `data:` URL, a fraction of the size of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def png(rgb: NDArray[np.uint8]) -> str:
    """Encode a picture as a `data:` URL."""
    buffer = io.BytesIO()
    packed = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    colors, indices = np.unique(packed, return_inverse=True)
    if len(colors) <= 256:
        picture = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8))
        picture.putpalette(b"".join(int(color).to_bytes(3, "big") for color in colors))
    else:
        picture = Image.fromarray(rgb)
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
