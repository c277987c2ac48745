"""Small scenes and models for inference tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.transform import Affine, from_origin
from torch import Tensor

from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource

UTM = from_origin(500_000, 5_000_000, 10, 10)


def write_scene(
    path: Path,
    image: NDArray[np.float32],
    *,
    crs: str | None = "EPSG:32633",
    transform: Affine = UTM,
    bands: tuple[str, ...] = ("red", "nir"),
) -> RasterSource:
    """Write `(C, H, W)` as a float GeoTIFF with nodata -1, and open it."""
    georeference = {"crs": crs, "transform": transform} if crs else {}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(image),
        height=image.shape[1],
        width=image.shape[2],
        dtype="float32",
        nodata=-1,
        **georeference,
    ) as file:
        file.write(image)
        file.descriptions = bands
    return open_raster(path)


def position_model(images: Tensor) -> Tensor:
    """Logits of three classes that depend on the position in the window, so seams would be visible.

    NaN counts as zero.
    """
    x = torch.nan_to_num(images)
    height, width = images.shape[2:]
    ramp = torch.linspace(-2, 2, width).expand(height, width)
    rise = torch.linspace(1, -1, height)[:, None].expand(height, width)
    return torch.stack([x[:, 0] + ramp, x[:, 1] - ramp, x[:, 0] * x[:, 1] + rise], dim=1)


def rule_model(images: Tensor) -> Tensor:
    """Three classes by the first band: below 1 (or NaN), below 2, others."""
    first = torch.nan_to_num(images[:, :1])
    index = first.ge(1).long() + first.ge(2).long()
    return torch.nn.functional.one_hot(index[:, 0], 3).movedim(-1, 1).float() * 20
