"""Folders that `geotune predict` might have written, for tests of `geotune view`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.transform import Affine, from_origin

from geotune.inference.segmentation import segment_scene
from geotune.inference.sliding_window import WindowOptions
from helpers.inference_scenes import rule_model, write_scene

CLASSES = ("background", "water", "ship")
SIDE = 96
UTM = from_origin(500_000, 5_000_000, 10, 10)


def write_folder(
    root: Path,
    name: str = "harbour",
    *,
    crs: str | None = "EPSG:32633",
    transform: Affine = UTM,
) -> Path:
    """Write `root/maps` with the class map, probabilities and polygons of `root/NAME.tif`.

    The left third of the 96 x 96 pixels is background, the middle water, the right third ship.
    """
    third = SIDE // 3
    image = np.repeat([0.5, 1.5, 2.5], third)[None, None].repeat(SIDE, axis=1)
    image = np.concatenate([image, 10 * image]).astype(np.float32)
    source = write_scene(root / f"{name}.tif", image, crs=crs, transform=transform)
    segment_scene(
        lambda images: rule_model(images).softmax(dim=1),
        source,
        root / "maps",
        WindowOptions(bands=source.bands, window=32),
        classes=CLASSES,
        name=name,
        probabilities=True,
        uncertainty=True,
    )
    return root / "maps"
