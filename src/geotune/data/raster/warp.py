"""Affine warps: square crops of a scene at any angle and scale.

scene                     The crop is computed from the smallest axis-aligned window around
+--------------+          it, so that it has no empty corner where the scene has pixels. One
|     .`.      | window   affine transform takes the window's image, mask and boxes to the
|  .`     `.   |          crop. It combines rotation and scale, so that pixels are resampled once.
| `.  crop  .` |
|   `.   .`    |
+-----`.`------+
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from geotune.data.raster.source import Image, apply_affine
from geotune.data.raster.windows import Window

Shape = tuple[int, int]


@dataclass(frozen=True)
class AffineCrop:
    """A rotated and scaled crop of a scene.

    Attributes:
        window: the window of the scene that contains it.
        transform: from pixels (column, row) of `window` to those of the crop.
        shape: (H, W) of the crop in its own pixels.
    """

    window: Window
    transform: Affine
    shape: Shape


def rotated_crop(x: float, y: float, size: int, *, angle: float, scale: float) -> AffineCrop:
    """The crop of `size` pixels centred at `x, y` (column, row) of a scene.

    Its content is rotated by `angle` degrees counter-clockwise and magnified by `scale`.
    """
    half = size / 2
    # y points down in pixels, so a positive angle of `Affine` is a clockwise rotation
    to_crop = (
        Affine.translation(half, half)
        @ Affine.rotation(-angle)
        @ Affine.scale(scale)
        @ Affine.translation(-x, -y)
    )
    corners = np.array([[0.0, size, size, 0.0], [0.0, 0.0, size, size]])
    xs, ys = apply_affine(~to_crop, *corners)
    # one more pixel on each side, to interpolate between the outermost centres
    left, top = math.floor(xs.min()) - 1, math.floor(ys.min()) - 1
    right, bottom = math.ceil(xs.max()) + 1, math.ceil(ys.max()) + 1
    window = Window(top, left, bottom - top, right - left)
    return AffineCrop(window, to_crop @ Affine.translation(left, top), (size, size))


def warp_bilinear(image: Image, transform: Affine, shape: Shape) -> Image:
    """Warp `(..., h, w)` to `(..., H, W)`, `shape`, with bilinear interpolation.

    NaN has no weight; a pixel with data in less than half of it is NaN. If `transform` reduces the
    scale, pixels are averages.
    """
    missing = np.isnan(image)
    flat = np.where(missing, np.float32(0), image).reshape(-1, *image.shape[-2:])
    if missing.any():
        valid = (~missing).reshape(flat.shape)
    else:  # one channel is enough to weigh pixels beyond the edge
        valid = np.ones((1, *flat.shape[1:]), dtype=np.bool_)
    stacked = np.concatenate([flat, valid.astype(np.float32)])
    warped = _grid_sample(stacked, transform, shape, "bilinear")
    weight = warped[len(flat) :]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(weight >= 0.5, warped[: len(flat)] / weight, np.float32(np.nan))
    return values.reshape(*image.shape[:-2], *shape)


def warp_nearest(
    pixels: NDArray[np.uint8], transform: Affine, shape: Shape, *, fill: int
) -> NDArray[np.uint8]:
    """Warp integers `(h, w)` to `shape` by nearest neighbour; `fill` beyond their edges."""
    shifted = (pixels.astype(np.float32) - fill)[None]
    warped = _grid_sample(shifted, transform, shape, "nearest")[0]
    return np.asarray(np.rint(warped + np.float32(fill)), dtype=np.uint8)


def warp_counts(counts: NDArray[np.int64], transform: Affine, shape: Shape) -> NDArray[np.int64]:
    """Warp counts of objects per pixel `(h, w)` to `shape`: each object moves with its pixel."""
    rows, cols = np.nonzero(counts)
    centres = np.stack([cols, rows]).astype(np.float64)
    centres += 0.5
    xs, ys = apply_affine(transform, *centres)
    col, row = np.floor(xs).astype(np.int64), np.floor(ys).astype(np.int64)
    inside = (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
    warped = np.zeros(shape, dtype=np.int64)
    np.add.at(warped, (row[inside], col[inside]), counts[rows, cols][inside])
    return warped


def _grid_sample(pixels: Image, transform: Affine, shape: Shape, mode: str) -> Image:
    """Warp `(C, h, w)` to `shape`; zero beyond the edges."""
    import torch  # imported here: slow, and not needed to read and check data
    import torch.nn.functional as F

    inverse = ~transform
    # samples along each side of a pixel, enough to skip none of the pixels that it covers
    scale = math.sqrt(abs(inverse.determinant))
    oversampling = math.ceil(scale - 1e-6) if mode == "bilinear" else 1
    height, width = (side * oversampling for side in shape)
    rows, cols = np.mgrid[:height, :width].astype(np.float64)
    fine = Affine.scale(1 / oversampling) @ Affine.translation(0.5, 0.5)
    xs, ys = apply_affine(inverse @ fine, cols, rows)
    # torch's coordinates: -1 at the outer edge of the first pixel, 1 at that of the last
    points = np.stack([2 * xs / pixels.shape[-1] - 1, 2 * ys / pixels.shape[-2] - 1], axis=-1)
    sampled = F.grid_sample(
        torch.from_numpy(pixels)[None],
        torch.from_numpy(points.astype(np.float32))[None],
        mode=mode,
        align_corners=False,
    )
    if oversampling > 1:
        sampled = F.avg_pool2d(sampled, oversampling)
    return np.asarray(sampled[0].numpy(), dtype=np.float32)
