"""Synthetic Sentinel-2-like scenes for demonstrations and tests, as arrays or GeoTIFFs.

They are not observations, and the files' tags say so. A scene is the ground of `land_cover.py` seen
through an atmosphere by a sensor; light, season and haze differ between scenes, so that a held-out
scene looks different from the training scenes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetWriter

from geotune.data.synthetic.land_cover import (
    BANDS,
    CLOUD,
    TEN_METRE_BANDS,
    WATER,
    WAVELENGTH_UM,
    Field,
    blur,
    draw_ground,
    gaussian_field,
    material_spectra,
    random_curve,
    smoothstep,
)
from geotune.errors import GeotuneError
from geotune.types import IGNORE

CLASSES = ("water", "vegetation", "fields", "built-up", "cloud", "shadow")
"""Class names, in the order of their values 0 to 5 in the labels."""

CLOUD_CLASS, SHADOW_CLASS = 4, 5
PIXEL_M = 10
MARGIN = 32  # pixels drawn around the scene, for blur and shadows from outside
DEFAULT_BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
MANIFEST = "synthetic.json"
MIN_SIZE = 64
"""Pixels; smaller scenes may lack classes."""

_VERSION = 1  # raised when the same parameters give other pixels
LABEL_COLOURS = {
    0: (38, 102, 176),
    1: (32, 110, 48),
    2: (222, 196, 104),
    3: (196, 60, 54),
    4: (240, 240, 240),
    5: (70, 60, 90),
}


@dataclass(frozen=True)
class SyntheticScene:
    """Pixels, labels and location of a scene.

    Attributes:
        image: `(C, H, W)` uint16, surface reflectance x 10000; 0 is nodata.
        labels: `(H, W)` uint8, index into `CLASSES`; `IGNORE` is nodata.
        epsg: of the UTM zone.
        west: easting of the left edge in metres.
        north: northing of the upper edge in metres.
    """

    image: NDArray[np.uint16]
    labels: NDArray[np.uint8]
    epsg: int
    west: int
    north: int


def make_scene(index: int, size: int, seed: int, bands: Sequence[str]) -> SyntheticScene:
    """Make scene number `index` of `seed`: `size` x `size` pixels, with `bands` of `BANDS`.

    Deterministic and independent of other scenes; a band does not depend on the other bands. Every
    second scene has a nodata corner, as at the edge of a swath.
    """
    rng = np.random.default_rng([seed, index])
    side = -(-(size + 2 * MARGIN) // 64) * 64  # a multiple of 64: fast Fourier transforms
    start = (side - size) // 2
    visible = slice(start, start + size)
    position = rng.integers(0, [5000, 14000])
    ripeness = rng.uniform(0, 1)
    ground = draw_ground(rng, side, size, ripeness)
    opacity, shadow = _clouds(rng, side, size, visible)
    labels = ground.cover.copy()
    labels[shadow > 0.4] = SHADOW_CLASS
    labels[opacity > 0.4] = CLOUD_CLASS

    table = material_spectra(greenness=1 - 0.15 * ripeness + rng.uniform(-0.05, 0.05))
    table = table * rng.normal(1, 0.03, table.shape).astype(np.float32)
    light = rng.uniform(0.92, 1.08)
    haze = rng.uniform(0.002, 0.016) * (1 + 0.25 * gaussian_field(rng, side, size / 2, 2.5))
    moisture = gaussian_field(rng, side, 40, 2.0) * (ground.cover != WATER)
    texture = gaussian_field(rng, side, 3, 1.5) * (ground.cover != WATER)
    thickness = np.clip(0.86 + 0.1 * gaussian_field(rng, side, 18, 1.9), 0.6, 1.1)
    nodata = _nodata_corner(rng, size) if index % 2 else np.zeros((size, size), bool)

    image = np.empty((len(bands), size, size), np.uint16)
    for layer, name in zip(image, bands, strict=True):
        band = BANDS.index(name)
        um = WAVELENGTH_UM[band]
        spectrum = table[:, band]
        first, second = spectrum[ground.first], spectrum[ground.second]
        surface = light * ground.brightness * (first + ground.mix * (second - first))
        surface *= 1 + 0.02 * texture - 0.05 * min(um / 1.6, 1) * moisture
        # only the blue sky lights the ground in a shadow
        surface *= 1 - shadow * (0.58 + 0.24 * min(um, 1.6) / 1.6)
        surface += haze * (0.49 / um) ** 2
        surface += opacity * (CLOUD[band] * thickness - surface)
        pixels = blur(surface, 0.55 if name in TEN_METRE_BANDS else 1.0)[visible, visible]
        grain = np.random.default_rng([seed, index, 1 + band]).standard_normal(
            (size, size), dtype=np.float32
        )
        pixels += grain * np.sqrt(1e-6 + 4e-5 * np.clip(pixels, 0, None))
        layer[...] = np.clip(np.rint(pixels * 10000), 1, 65535)
        layer[nodata] = 0
    cropped = labels[visible, visible].copy()
    cropped[nodata] = IGNORE
    return SyntheticScene(
        image=image,
        labels=cropped,
        epsg=32630 + index % 6,
        west=300_000 + int(position[0]) * 60,
        north=4_800_000 + int(position[1]) * 60,
    )


def _clouds(rng: np.random.Generator, side: int, size: int, visible: slice) -> tuple[Field, Field]:
    """Opacity of clouds and of their shadows, in 0 to 1."""
    field = gaussian_field(rng, side, min(60, size / 3), 2.1) + 0.8 * gaussian_field(
        rng, side, size / 2, 2.5
    )
    level = float(np.quantile(field[visible, visible], 1 - rng.uniform(0.05, 0.12)))
    opacity = smoothstep(field, level - 0.4, level + 0.6)
    azimuth = np.deg2rad(rng.uniform(135, 165))  # morning sun, northern mid-latitudes
    distance = min(rng.uniform(30, 55), size / 6)
    rows, columns = round(np.cos(azimuth) * distance), round(-np.sin(azimuth) * distance)
    return opacity, np.roll(blur(opacity, 1.5), (rows, columns), axis=(0, 1))


def _nodata_corner(rng: np.random.Generator, size: int) -> NDArray[np.bool_]:
    """Mask `(size, size)` of a corner behind a slanted, slightly ragged line."""
    steps = np.arange(size)
    ragged = random_curve(rng, size, 20) * 1.5 + rng.integers(0, 2, size)
    limit = rng.uniform(0.2, 0.4) * size - steps * rng.uniform(0.3, 0.9) + ragged
    mask = steps[None, :] < limit[:, None]
    return np.ascontiguousarray(np.rot90(mask, int(rng.integers(4))))


def write_synthetic_scenes(
    folder: Path,
    count: int = 4,
    size: int = 512,
    seed: int = 0,
    bands: Sequence[str] = DEFAULT_BANDS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write `count` synthetic scenes into `folder` and return the paths of their images.

    `scene_000.tif` holds uint16 surface reflectance x 10000 of `bands` (a subset of `BANDS`),
    `size` x `size` pixels of 10 m in a UTM zone, with nodata 0; `scene_000_labels.tif` holds
    indices of `CLASSES`, with nodata 255. A scene does not depend on `count`. An existing folder
    with the same parameters is reused, and completed if writing was interrupted. `on_progress`
    receives finished and total scenes.

    Raises `GeotuneError` for invalid parameters, and for a folder with other parameters or with
    scenes that geotune did not write.
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
    _prepare_folder(folder, parameters)
    paths = [folder / f"scene_{index:03d}.tif" for index in range(count)]
    for index, path in enumerate(paths):
        on_progress(index, count)
        if not (path.exists() and labels_path(path).exists()):
            _write(path, index, size, seed, bands)
    on_progress(count, count)
    return paths


def labels_path(scene: Path) -> Path:
    """Path of the labels of a synthetic scene."""
    return scene.with_name(f"{scene.stem}_labels.tif")


def _check(count: int, size: int, seed: int, bands: tuple[str, ...]) -> None:
    for name, value, minimum in (("count", count, 1), ("size", size, MIN_SIZE), ("seed", seed, 0)):
        if value < minimum:
            raise GeotuneError(
                f"synthetic scenes: {name} is {value}; expected at least {minimum}",
                code="synthetic-options",
            )
    unknown = [band for band in bands if band not in BANDS]
    if unknown or not bands:
        raise GeotuneError(
            f"synthetic scenes: found {', '.join(unknown) or 'no band'} in bands; "
            f"expected some of {', '.join(BANDS)}",
            code="synthetic-options",
        )
    if len(set(bands)) != len(bands):
        raise GeotuneError(
            f"synthetic scenes: repeated band in {', '.join(bands)}", code="synthetic-options"
        )


def _prepare_folder(folder: Path, parameters: dict[str, Any]) -> None:
    """Create `folder` with a manifest of `parameters`, or check that an existing one matches."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GeotuneError(
            f"{folder}: cannot create the folder ({error.strerror}); choose another one",
            code="synthetic-folder",
            file=folder,
        ) from error
    # listed before the manifest, which a concurrent process writes before its scenes
    scenes = sorted(folder.glob("scene_*.tif"))
    manifest = folder / MANIFEST
    if not manifest.exists():
        if scenes:
            raise GeotuneError(
                f"{folder}: found {scenes[0].name} but no {MANIFEST}: geotune did not write "
                "these scenes; choose another folder",
                code="synthetic-folder",
                file=folder,
            )
        text = json.dumps(parameters, indent=2) + "\n"
        with _atomic_path(manifest) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return
    try:
        written = json.loads(manifest.read_text(encoding="utf-8"))
        differing = [
            f"{key} is {written.get(key)!r} instead of {value!r}"
            for key, value in parameters.items()
            if written.get(key) != value
        ]
    except (OSError, ValueError, AttributeError) as error:
        raise GeotuneError(
            f"{manifest}: cannot be read ({error}); remove the folder or choose another one",
            code="synthetic-folder",
            file=manifest,
        ) from error
    if differing:
        raise GeotuneError(
            f"{folder}: contains synthetic scenes with other parameters: {'; '.join(differing)}; "
            "remove the folder, choose another one, or use the same parameters",
            code="synthetic-folder",
            file=folder,
        )


def _write(path: Path, index: int, size: int, seed: int, bands: tuple[str, ...]) -> None:
    """Write one scene and its labels, each atomically."""
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

    def describe_image(image: DatasetWriter) -> None:
        image.descriptions = bands
        image.scales = [1e-4] * len(bands)
        image.update_tags(units="surface reflectance x 10000", **tags)

    def describe_labels(labels: DatasetWriter) -> None:
        labels.set_band_description(1, "class")
        labels.write_colormap(1, LABEL_COLOURS)
        labels.update_tags(classes=",".join(CLASSES), **tags)

    image_profile = {**profile, "predictor": 2, "interleave": "band"}
    _write_raster(labels_path(path), scene.labels[None], IGNORE, profile, describe_labels)
    _write_raster(path, scene.image, 0, image_profile, describe_image)


def _write_raster(
    path: Path,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    nodata: int,
    profile: dict[str, Any],
    finish: Callable[[DatasetWriter], None],
) -> None:
    with (
        _atomic_path(path) as temporary,
        rasterio.open(
            temporary, "w", count=len(pixels), dtype=pixels.dtype, nodata=nodata, **profile
        ) as raster,
    ):
        raster.write(pixels)
        finish(raster)


@contextmanager
def _atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path, renamed to `path` on success and removed on failure."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
