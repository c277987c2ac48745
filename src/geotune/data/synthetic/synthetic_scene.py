"""One synthetic multispectral scene as arrays: the ground, seen through an atmosphere by a sensor.

Nothing here is an observation. The scenes are for demonstrations and tests: they look and behave
enough like Sentinel-2 surface reflectance that a network has something to learn, and a held-out
scene has another light, season and haze than the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geotune.data.synthetic.land_cover import WATER, draw_ground
from geotune.data.synthetic.noise import Field, blur, curve, noise, ramp
from geotune.data.synthetic.spectra import BANDS, CLOUD, TEN_METRE_BANDS, WAVELENGTH_UM, spectra
from geotune.types import IGNORE

CLASSES = ("water", "vegetation", "fields", "built-up", "cloud", "shadow")
"""Names of the values 0 to 5 of a synthetic scene's labels."""

CLOUD_CLASS, SHADOW_CLASS = 4, 5
PIXEL_M = 10
MARGIN = 32  # drawn around the scene, so that blur and shadows come from outside it too


@dataclass(frozen=True)
class SyntheticScene:
    """Pixels, labels and place of a scene.

    Attributes:
        image: `(C, H, W)` uint16, surface reflectance x 10000; 0 where there is no data.
        labels: `(H, W)` uint8, index into `CLASSES`; `IGNORE` where there is no data.
        epsg: the UTM zone's code.
        west: easting of the left edge in metres.
        north: northing of the upper edge in metres.
    """

    image: NDArray[np.uint16]
    labels: NDArray[np.uint8]
    epsg: int
    west: int
    north: int


def make_scene(index: int, size: int, seed: int, bands: Sequence[str]) -> SyntheticScene:
    """Make scene number `index` of `seed`, `size` x `size` pixels, with `bands` of `BANDS`.

    The same arguments give the same bits; a band's pixels do not depend on the other bands, nor a
    scene on the other scenes. Every second scene has a corner without data, as at a swath's edge.
    """
    rng = np.random.default_rng([seed, index])
    side = -(-(size + 2 * MARGIN) // 64) * 64  # many factors of two: fast Fourier transforms
    start = (side - size) // 2
    seen = slice(start, start + size)
    place = rng.integers(0, [5000, 14000])
    ripeness = rng.uniform(0, 1)
    ground = draw_ground(rng, side, size, ripeness)
    opacity, shadow = _clouds(rng, side, size, seen)
    labels = ground.cover.copy()
    labels[shadow > 0.4] = SHADOW_CLASS
    labels[opacity > 0.4] = CLOUD_CLASS

    table = spectra(greenness=1 - 0.15 * ripeness + rng.uniform(-0.05, 0.05))
    table = table * rng.normal(1, 0.03, table.shape).astype(np.float32)
    light = rng.uniform(0.92, 1.08)
    haze = rng.uniform(0.002, 0.016) * (1 + 0.25 * noise(rng, side, size / 2, 2.5))
    moisture = noise(rng, side, 40, 2.0) * (ground.cover != WATER)
    texture = noise(rng, side, 3, 1.5) * (ground.cover != WATER)
    thickness = np.clip(0.86 + 0.1 * noise(rng, side, 18, 1.9), 0.6, 1.1)
    missing = _missing(rng, size) if index % 2 else np.zeros((size, size), bool)

    image = np.empty((len(bands), size, size), np.uint16)
    for layer, name in zip(image, bands, strict=True):
        band = BANDS.index(name)
        um = WAVELENGTH_UM[band]
        spectrum = table[:, band]
        first, second = spectrum[ground.first], spectrum[ground.second]
        surface = light * ground.brightness * (first + ground.share * (second - first))
        surface *= 1 + 0.02 * texture - 0.05 * min(um / 1.6, 1) * moisture
        # in the shade only the sky lights the ground, and the sky is blue
        surface *= 1 - shadow * (0.58 + 0.24 * min(um, 1.6) / 1.6)
        surface += haze * (0.49 / um) ** 2
        surface += opacity * (CLOUD[band] * thickness - surface)
        seen_surface = blur(surface, 0.55 if name in TEN_METRE_BANDS else 1.0)[seen, seen]
        grain = np.random.default_rng([seed, index, 1 + band]).standard_normal(
            (size, size), dtype=np.float32
        )
        seen_surface += grain * np.sqrt(1e-6 + 4e-5 * np.clip(seen_surface, 0, None))
        layer[...] = np.clip(np.rint(seen_surface * 10000), 1, 65535)
        layer[missing] = 0
    cropped = labels[seen, seen].copy()
    cropped[missing] = IGNORE
    return SyntheticScene(
        image=image,
        labels=cropped,
        epsg=32630 + index % 6,
        west=300_000 + int(place[0]) * 60,
        north=4_800_000 + int(place[1]) * 60,
    )


def _clouds(rng: np.random.Generator, side: int, size: int, seen: slice) -> tuple[Field, Field]:
    """Opacity of clouds, and of the shadows that they throw away from the sun, in 0 to 1."""
    field = noise(rng, side, min(60, size / 3), 2.1) + 0.8 * noise(rng, side, size / 2, 2.5)
    level = float(np.quantile(field[seen, seen], 1 - rng.uniform(0.05, 0.12)))
    opacity = ramp(field, level - 0.4, level + 0.6)
    azimuth = np.deg2rad(rng.uniform(135, 165))  # of a morning sun in the northern mid-latitudes
    distance = min(rng.uniform(30, 55), size / 6)
    rows, columns = round(np.cos(azimuth) * distance), round(-np.sin(azimuth) * distance)
    return opacity, np.roll(blur(opacity, 1.5), (rows, columns), axis=(0, 1))


def _missing(rng: np.random.Generator, size: int) -> NDArray[np.bool_]:
    """A corner cut off by a slanted, slightly ragged line."""
    steps = np.arange(size)
    ragged = curve(rng, size, 20) * 1.5 + rng.integers(0, 2, size)
    limit = rng.uniform(0.2, 0.4) * size - steps * rng.uniform(0.3, 0.9) + ragged
    mask = steps[None, :] < limit[:, None]
    return np.ascontiguousarray(np.rot90(mask, int(rng.integers(4))))
