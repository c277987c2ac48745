"""Map the classes of a scene with a model that `geotune export --to onnx` wrote, without geotune.

    python recipes/onnx/map_scene.py runs/ships/ships.onnx scene.tif classes.tif

Needs onnxruntime, rasterio and NumPy. The map is that of `geotune predict`: windows that overlap by
half, whose probabilities are averaged with the weight sin^2 along both axes. It holds the scene in
memory; the bands of the file must be those of the model, in their order.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
import rasterio

NODATA = 255
OVERLAP = 0.5


def starts(length: int, window: int) -> list[int]:
    """First pixels of the windows along an axis; the last one ends with the axis."""
    if length <= window:
        return [0]
    step = max(1, int(window * (1 - OVERLAP)))
    return [*range(0, length - window, step), length - window]


def main(model: str, scene: str, out: str) -> None:
    """Write the class map of a scene."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["geotune"])
    window = about["inputs"]["images"]["shape"][-1]
    with rasterio.open(scene) as file:
        profile = file.profile
        image = file.read(masked=True).astype(np.float32).filled(np.nan)
    image[~np.isfinite(image)] = np.nan
    bands, height, width = image.shape
    if bands != len(about["inputs"]["images"]["bands"]):
        sys.exit(
            f"{scene}: {bands} bands, but the model takes {about['inputs']['images']['bands']}"
        )
    padded = np.full((bands, max(height, window), max(width, window)), np.nan, np.float32)
    padded[:, :height, :width] = image
    axis = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    weights = np.outer(axis, axis).astype(np.float32)
    sums = np.zeros((len(about["classes"]), *padded.shape[1:]), np.float32)
    for top in starts(height, window):
        for left in starts(width, window):
            rows, columns = slice(top, top + window), slice(left, left + window)
            pixels = padded[None, :, rows, columns]
            if not np.isnan(pixels).all():
                [probabilities] = session.run(None, {"images": pixels})
                sums[:, rows, columns] += probabilities[0] * weights
    classes = sums.argmax(axis=0)[:height, :width].astype(np.uint8)
    classes[np.isnan(image).all(axis=0)] = NODATA
    profile.update(driver="GTiff", count=1, dtype="uint8", nodata=NODATA)
    with rasterio.open(out, "w", **profile) as file:
        file.write(classes, 1)
        file.update_tags(1, **{f"class_{i}": name for i, name in enumerate(about["classes"])})


if __name__ == "__main__":
    main(*sys.argv[1:])
