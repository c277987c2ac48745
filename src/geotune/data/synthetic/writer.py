"""Synthetic scenes on disk: georeferenced multispectral GeoTIFFs with labels, made from a seed.

They are not observations; every file says so in its tags. See `scene.py` for what is in
them and `spectra.py` for the reflectance of its materials.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetWriter

from geotune.data.synthetic.spectra import BANDS
from geotune.data.synthetic.synthetic_scene import CLASSES, PIXEL_M, make_scene
from geotune.errors import GeotuneError
from geotune.types import IGNORE

__all__ = ["CLASSES", "DEFAULT_BANDS", "MANIFEST", "MIN_SIZE", "labels_path", "write_scenes"]

DEFAULT_BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
MANIFEST = "synthetic.json"
MIN_SIZE = 64
"""Pixels; in a smaller scene there is no room for every class."""

_VERSION = 1  # raised when the same parameters give other pixels
_COLOURS = {
    0: (38, 102, 176),
    1: (32, 110, 48),
    2: (222, 196, 104),
    3: (196, 60, 54),
    4: (240, 240, 240),
    5: (70, 60, 90),
}


def write_scenes(
    folder: Path,
    count: int = 4,
    size: int = 512,
    seed: int = 0,
    bands: Sequence[str] = DEFAULT_BANDS,
) -> list[Path]:
    """Write `count` synthetic scenes into `folder` and return the paths of their images.

    `scene_000.tif` holds uint16 surface reflectance x 10000 of `bands` (any of Sentinel-2's, by
    name), `size` x `size` pixels of 10 m in a UTM zone, with 0 for no data;
    `scene_000_labels.tif` holds the indices of `CLASSES`, with 255 for no data. Scene number k is
    the same for every `count`. A folder that was written with the same parameters is used as it
    is, and one that was left half-way is completed.

    Raises `GeotuneError` for parameters that make no scenes, for a folder written with other
    parameters, and for one with scenes that are not ours.
    """
    bands = tuple(bands)
    _check(count, size, seed, bands)
    parameters = {
        "generator": f"geotune synthetic {_VERSION}",
        "count": count,
        "size": size,
        "seed": seed,
        "bands": list(bands),
    }
    _claim(folder, parameters)
    paths = [folder / f"scene_{index:03d}.tif" for index in range(count)]
    for index, path in enumerate(paths):
        if not (path.exists() and labels_path(path).exists()):
            _write(path, index, size, seed, bands)
    return paths


def labels_path(scene: Path) -> Path:
    """Where the labels of a synthetic scene lie."""
    return scene.with_name(f"{scene.stem}_labels.tif")


def _check(count: int, size: int, seed: int, bands: tuple[str, ...]) -> None:
    for name, value, least in (("count", count, 1), ("size", size, MIN_SIZE), ("seed", seed, 0)):
        if value < least:
            raise GeotuneError(f"synthetic scenes: {name} is {value}; give at least {least}")
    unknown = [band for band in bands if band not in BANDS]
    if unknown or not bands:
        raise GeotuneError(
            f"synthetic scenes: bands has {', '.join(unknown) or 'no band'}; "
            f"give some of {', '.join(BANDS)}"
        )
    if len(set(bands)) != len(bands):
        raise GeotuneError(f"synthetic scenes: bands names a band twice: {', '.join(bands)}")


def _claim(folder: Path, parameters: dict[str, Any]) -> None:
    """Make `folder` one of synthetic scenes with `parameters`, or find that it is one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GeotuneError(
            f"{folder}: cannot be made a folder ({error.strerror}); give another"
        ) from error
    # looked for before the manifest, which a process beside this one writes before any scene
    scenes = sorted(folder.glob("scene_*.tif"))
    manifest = folder / MANIFEST
    if not manifest.exists():
        if scenes:
            raise GeotuneError(
                f"{folder}: holds {scenes[0].name} but no {MANIFEST}, so its scenes were not made "
                "by geotune; give another folder"
            )
        text = json.dumps(parameters, indent=2) + "\n"
        with _whole(manifest) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
        differing = [
            f"{key} is {found.get(key)!r} there and {value!r} here"
            for key, value in parameters.items()
            if found.get(key) != value
        ]
    except (OSError, ValueError, AttributeError) as error:
        raise GeotuneError(
            f"{manifest}: cannot be read ({error}); remove the folder or give another"
        ) from error
    if differing:
        raise GeotuneError(
            f"{folder}: holds synthetic scenes of other parameters: {'; '.join(differing)}; "
            "remove it, give another folder, or ask for the same parameters"
        )


def _write(path: Path, index: int, size: int, seed: int, bands: tuple[str, ...]) -> None:
    """Write one scene and its labels, each whole or not at all."""
    scene = make_scene(index, size, seed, bands)
    profile = {
        "driver": "GTiff",
        "width": size,
        "height": size,
        "crs": CRS.from_epsg(scene.epsg),
        "transform": Affine(PIXEL_M, 0, scene.west, 0, -PIXEL_M, scene.north),
        "tiled": True,
        "blockxsize": min(256, size // 16 * 16),
        "blockysize": min(256, size // 16 * 16),
        "compress": "deflate",
    }
    tags = {
        "synthetic": f"geotune synthetic {_VERSION}: made from a seed, not an observation",
        "synthetic_seed": str(seed),
        "synthetic_scene": str(index),
    }

    def describe(image: DatasetWriter) -> None:
        image.descriptions = bands
        image.scales = [1e-4] * len(bands)
        image.update_tags(units="surface reflectance x 10000", **tags)

    def explain(labels: DatasetWriter) -> None:
        labels.set_band_description(1, "class")
        labels.write_colormap(1, _COLOURS)
        labels.update_tags(classes=",".join(CLASSES), **tags)

    image_profile = {**profile, "predictor": 2, "interleave": "band"}
    _write_raster(labels_path(path), scene.labels[None], IGNORE, profile, explain)
    _write_raster(path, scene.image, 0, image_profile, describe)


def _write_raster(
    path: Path,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    nodata: int,
    profile: dict[str, Any],
    finish: Callable[[DatasetWriter], None],
) -> None:
    with (
        _whole(path) as temporary,
        rasterio.open(
            temporary, "w", count=len(pixels), dtype=pixels.dtype, nodata=nodata, **profile
        ) as raster,
    ):
        raster.write(pixels)
        finish(raster)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and is removed otherwise."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
