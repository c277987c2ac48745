"""Squares of a scene at any angle and scale, and what is in them.

scene                     The pixels are those of the smallest upright window around the
+--------------+          square, so that no corner of it is empty where the scene has
|     .`.      | window   pixels. One affine map takes the window's image, mask and boxes to
|  .`     `.   |          the view. It joins rotation and scale, so that pixels are computed
| `.  view  .` |          anew once.
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
    """A square of a scene.

    Attributes:
        window: of the scene, which holds all that the view shows.
        to: from pixels (column, row) of `window` to those of the view.
        shape: (H, W) of the view in its own pixels.
    """

    window: Window
    transform: Affine
    shape: Shape


def rotated_crop(x: float, y: float, size: int, *, angle: float, scale: float) -> AffineCrop:
    """The view of `size` pixels around the place `x, y` (column, row) of a scene.

    What it shows is turned by `angle` degrees against the clock and appears `scale` times larger.
    """
    half = size / 2
    # in pixels y points down, so that a positive angle of `Affine` is a turn with the clock
    to_view = (
        Affine.translation(half, half)
        @ Affine.rotation(-angle)
        @ Affine.scale(scale)
        @ Affine.translation(-x, -y)
    )
    corners = np.array([[0.0, size, size, 0.0], [0.0, 0.0, size, size]])
    xs, ys = apply_affine(~to_view, *corners)
    # a pixel more on every side, for what is between the outermost centres
    left, top = math.floor(xs.min()) - 1, math.floor(ys.min()) - 1
    right, bottom = math.ceil(xs.max()) + 1, math.ceil(ys.max()) + 1
    window = Window(top, left, bottom - top, right - left)
    return AffineCrop(window, to_view @ Affine.translation(left, top), (size, size))


def warp_bilinear(image: Image, to: Affine, shape: Shape) -> Image:
    """An image `(..., h, w)` brought to `shape` by `to`, bilinearly, `(..., H, W)`.

    What has no data, NaN, does not weigh in; a pixel of which less than half is known is NaN. Where
    `to` makes things smaller, what a pixel covers is averaged.
    """
    missing = np.isnan(image)
    flat = np.where(missing, np.float32(0), image).reshape(-1, *image.shape[-2:])
    if missing.any():
        known = (~missing).reshape(flat.shape)
    else:  # one channel says for all of them what lies beyond the edge
        known = np.ones((1, *flat.shape[1:]), dtype=np.bool_)
    found = _sampled(np.concatenate([flat, known.astype(np.float32)]), to, shape, "bilinear")
    weight = found[len(flat) :]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(weight >= 0.5, found[: len(flat)] / weight, np.float32(np.nan))
    return values.reshape(*image.shape[:-2], *shape)


def warp_nearest(
    pixels: NDArray[np.uint8], to: Affine, shape: Shape, *, outside: int
) -> NDArray[np.uint8]:
    """Whole numbers `(h, w)` brought to `shape` by `to`, each that of the nearest pixel."""
    moved = _sampled((pixels.astype(np.float32) - outside)[None], to, shape, "nearest")[0]
    return np.asarray(np.rint(moved + np.float32(outside)), dtype=np.uint8)


def warp_counts(counts: NDArray[np.int64], to: Affine, shape: Shape) -> NDArray[np.int64]:
    """How many things stand in each pixel, brought to `shape` by `to`; none is doubled."""
    rows, cols = np.nonzero(counts)
    middles = np.stack([cols, rows]).astype(np.float64)
    middles += 0.5
    xs, ys = apply_affine(to, *middles)
    col, row = np.floor(xs).astype(np.int64), np.floor(ys).astype(np.int64)
    inside = (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
    found = np.zeros(shape, dtype=np.int64)
    np.add.at(found, (row[inside], col[inside]), counts[rows, cols][inside])
    return found


def _sampled(pixels: Image, to: Affine, shape: Shape, mode: str) -> Image:
    """`(C, h, w)` brought to `shape` by `to`, zero beyond the edges."""
    import torch  # which reading and checking data need not wait for
    import torch.nn.functional as F

    back = ~to
    # so many samples along each side of a pixel that none of what it covers is passed over
    finer = math.ceil(math.sqrt(abs(back.determinant)) - 1e-6) if mode == "bilinear" else 1
    height, width = (side * finer for side in shape)
    rows, cols = np.mgrid[:height, :width].astype(np.float64)
    fine = Affine.scale(1 / finer) @ Affine.translation(0.5, 0.5)
    xs, ys = apply_affine(back @ fine, cols, rows)
    # torch counts from -1 at the first pixel's outer edge to 1 at the last one's
    places = np.stack([2 * xs / pixels.shape[-1] - 1, 2 * ys / pixels.shape[-2] - 1], axis=-1)
    found = F.grid_sample(
        torch.from_numpy(pixels)[None],
        torch.from_numpy(places.astype(np.float32))[None],
        mode=mode,
        align_corners=False,
    )
    if finer > 1:
        found = F.avg_pool2d(found, finer)
    return np.asarray(found[0].numpy(), dtype=np.float32)
