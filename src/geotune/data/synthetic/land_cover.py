"""Land cover of synthetic scenes: random fields, material spectra, and the layout of the ground.

The ground is drawn on a square canvas of 10 m pixels. Each pixel is a brightness times a mixture of
two materials, so the ground does not depend on the bands.

Material spectra are rounded textbook values in the shapes of the USGS and ECOSTRESS libraries, not
measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Index = NDArray[np.int64]

# ---------------------------------------------------------------- material spectra
BANDS = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12",
)  # fmt: skip
"""Sentinel-2 bands, in the order of the columns below."""

WAVELENGTH_UM = (
    0.443, 0.490, 0.560, 0.665, 0.705, 0.740, 0.783, 0.842, 0.865, 0.945, 1.610, 2.190,
)  # fmt: skip
"""Central wavelength of each of `BANDS`."""

TEN_METRE_BANDS = ("B02", "B03", "B04", "B08")
"""Bands with 10 m resolution; the others are blurred more."""

_TABLE: dict[str, tuple[float, ...]] = {
    "clear water": (.040, .036, .030, .017, .014, .012, .011, .010, .009, .008, .005, .004),
    "turbid water": (.056, .062, .080, .066, .060, .040, .037, .030, .026, .018, .010, .007),
    "conifer": (.018, .020, .034, .022, .055, .140, .175, .195, .205, .205, .090, .042),
    "broadleaf": (.020, .023, .050, .026, .080, .260, .345, .375, .390, .390, .170, .072),
    "meadow": (.028, .034, .068, .044, .105, .265, .325, .350, .365, .365, .215, .110),
    "green crop": (.026, .031, .068, .037, .092, .310, .410, .440, .455, .455, .190, .085),
    "young crop": (.042, .053, .088, .085, .120, .220, .262, .285, .297, .300, .245, .160),
    "ripe crop": (.058, .076, .118, .148, .180, .222, .245, .268, .284, .288, .335, .225),
    "stubble": (.060, .079, .112, .145, .170, .192, .208, .228, .246, .250, .345, .262),
    "light soil": (.074, .093, .130, .168, .188, .203, .215, .233, .247, .252, .335, .285),
    "dark soil": (.038, .047, .065, .084, .098, .109, .118, .131, .141, .146, .205, .172),
    "asphalt": (.066, .076, .089, .098, .105, .111, .115, .121, .125, .128, .145, .136),
    "tiles": (.070, .084, .112, .160, .184, .199, .209, .220, .230, .235, .258, .226),
    "concrete": (.165, .195, .222, .240, .250, .257, .262, .270, .276, .278, .290, .270),
}  # fmt: skip

MATERIALS = {name: index for index, name in enumerate(_TABLE)}
"""Row of each material in `material_spectra`."""

CLOUD = np.array(
    [.70, .70, .68, .68, .69, .70, .70, .71, .70, .55, .46, .34], np.float32
)  # fmt: skip
"""Reflectance of a thick cloud in each of `BANDS`."""


def material_spectra(greenness: float) -> NDArray[np.float32]:
    """Reflectance of every material in every band, `(materials, bands)`, in 0 to 1.

    `greenness` below 1 mixes leafy materials with ripe crop: less red absorption, less NIR.
    """
    table = np.array(list(_TABLE.values()), np.float32)
    leafy = [MATERIALS[m] for m in ("broadleaf", "meadow", "green crop", "young crop")]
    dry = table[MATERIALS["ripe crop"]]
    table[leafy] = greenness * table[leafy] + (1 - greenness) * dry
    return table


# ---------------------------------------------------------------- random fields
def gaussian_field(
    rng: np.random.Generator, side: int, scale: float, roughness: float = 2.0
) -> Field:
    """A periodic Gaussian random field `(side, side)` with mean 0 and standard deviation 1.

    `scale` is the size in pixels of its largest features; at smaller scales the amplitude falls
    with the frequency to the power `roughness` (1.5 is ragged, 3 smooth).
    """
    rows = np.fft.fftfreq(side)[:, None]
    columns = np.fft.rfftfreq(side)[None, :]
    amplitude = (rows**2 + columns**2 + scale**-2.0) ** (-roughness / 2)
    amplitude[0, 0] = 0
    white = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32))
    field = np.fft.irfft2(white * amplitude.astype(np.float32), s=(side, side))
    return np.asarray(field / field.std(), dtype=np.float32)


def random_curve(rng: np.random.Generator, side: int, scale: float) -> Field:
    """A smooth periodic random line `(side,)` with mean 0 and standard deviation 1."""
    frequency = np.fft.rfftfreq(side)
    amplitude = (frequency**2 + scale**-2.0) ** -1.9
    amplitude[0] = 0
    line = np.fft.irfft(np.fft.rfft(rng.standard_normal(side)) * amplitude, n=side)
    return np.asarray(line / line.std(), dtype=np.float32)


def hashed_uniform(salt: int, *keys: NDArray[Any]) -> Field:
    """A number in [0, 1) for each combination of integer `keys`, by hashing."""
    mixed = np.full(np.broadcast_shapes(*(k.shape for k in keys)), salt, np.uint64)
    for key in keys:  # splitmix64 finaliser
        mixed = mixed + key.astype(np.int64).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def blur(field: Field, sigma: float) -> Field:
    """Convolve `field` `(..., H, W)` with a Gaussian of `sigma` pixels; edges wrap around."""
    reach = int(np.ceil(3 * sigma))
    offsets = range(-reach, reach + 1)
    weights = np.exp([-0.5 * (offset / sigma) ** 2 for offset in offsets])
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (-2, -1):
        sharp, field = field, np.zeros_like(field)
        for offset, weight in zip(offsets, weights, strict=True):
            field += np.roll(sharp, offset, axis) * weight
    return field


def smoothstep(field: Field, low: float, high: float) -> Field:
    """0 below `low`, 1 above `high`, smooth in between."""
    t = np.clip((field - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


# ---------------------------------------------------------------- land cover
WATER, VEGETATION, FIELDS, BUILT_UP = range(4)

_CROPS = {  # fraction of the plots early and late in the season
    "green crop": (0.34, 0.22),
    "young crop": (0.20, 0.10),
    "meadow": (0.18, 0.16),
    "ripe crop": (0.05, 0.20),
    "stubble": (0.02, 0.15),
    "light soil": (0.08, 0.10),
    "dark soil": (0.13, 0.07),
}


@dataclass
class Ground:
    """Land-cover class and materials of every pixel, each array `(side, side)`.

    A pixel's reflectance is `brightness * ((1 - mix) * first + mix * second)`.
    """

    cover: NDArray[np.uint8]
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    mix: Field
    brightness: Field

    def paint(
        self, mask: Mask, cover: int, first: str | Index, second: str | Index,
        mix: Field, brightness: Field,
    ) -> None:  # fmt: skip
        """Set the pixels in `mask` to a mixture of two materials."""
        self.cover[mask] = cover
        for layer, material in ((self.first, first), (self.second, second)):
            layer[mask] = MATERIALS[material] if isinstance(material, str) else material[mask]
        self.mix[mask] = mix[mask]
        self.brightness[mask] = brightness[mask]


@dataclass(frozen=True)
class Parcels:
    """Farmland plots, each array `(side, side)`.

    `number` identifies the plot, `edge` is the distance to its edge in pixels, and `row` is the
    number of the work row within it.
    """

    number: Index
    edge: Field
    row: Index


def draw_ground(rng: np.random.Generator, side: int, size: int, ripeness: float) -> Ground:
    """Draw the ground of a scene, whose central `size` pixels will be visible.

    `ripeness` from 0 to 1 moves the crops from green to harvested.
    """
    visible = slice((side - size) // 2, (side - size) // 2 + size)
    terrain = gaussian_field(rng, side, size / 2.5, 2.4)
    salt = int(rng.integers(2**31))
    parcels = _parcels(rng, side, salt)
    ground = Ground(
        cover=np.full((side, side), FIELDS, np.uint8),
        first=np.zeros((side, side), np.uint8),
        second=np.zeros((side, side), np.uint8),
        mix=np.zeros((side, side), np.float32),
        brightness=np.ones((side, side), np.float32),
    )
    _paint_fields(ground, rng, parcels, ripeness, salt)
    river = _line_distance(rng, side, wiggle=0.13, scale=size / 4)
    wooded = _woods(rng, side, terrain, parcels, visible)
    width = rng.uniform(2.0, 5.5) * (1 + 0.3 * gaussian_field(rng, side, 60, 2.5))
    wooded |= river < width + 1.5 + 3.5 * smoothstep(gaussian_field(rng, side, 25, 2), -0.5, 1.5)
    _paint_woods(ground, rng, wooded)
    town = _town(rng, side, size, terrain, visible)
    _paint_town(ground, rng, town, salt)
    lake = terrain < np.quantile(terrain[visible, visible], rng.uniform(0.05, 0.14))
    _paint_water(ground, rng, lake | (river < width))
    for _ in range(int(rng.integers(2, 4))):
        road = _line_distance(rng, side, wiggle=0.05, scale=size / 2) < rng.uniform(0.7, 1.2)
        mix = rng.uniform(0.0, 0.3) * np.ones((side, side), np.float32)
        ground.paint(road & ~lake, BUILT_UP, "asphalt", "concrete", mix, np.ones_like(mix))
    slope = np.gradient(terrain, axis=0) + 0.6 * np.gradient(terrain, axis=1)  # sun: south-east
    land = ground.cover != WATER
    ground.brightness[land] *= np.clip(1 - 0.06 * slope / slope.std(), 0.8, 1.2)[land]
    return ground


def _grid(side: int, angle: float | Field) -> tuple[Field, Field]:
    """Pixel coordinates relative to the canvas centre, rotated by `angle`."""
    y, x = np.mgrid[:side, :side].astype(np.float32) - np.float32(side / 2)
    cos, sin = np.cos(angle), np.sin(angle)
    return (
        np.asarray(x * cos + y * sin, dtype=np.float32),
        np.asarray(y * cos - x * sin, dtype=np.float32),
    )


def _cells(rng: np.random.Generator, side: int, spacing: float) -> tuple[Index, int]:
    """Voronoi cells about `spacing` wide: each pixel's cell number, and the number of cells."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    across = int(side / spacing) + 3
    rows, columns = (np.arange(across) - 1)[:, None], (np.arange(across) - 1)[None, :]
    jitter = rng.uniform(0, spacing, (2, across, across))  # one site per grid square
    site_y = (rows * spacing + jitter[0]).astype(np.float32)
    site_x = (columns * spacing + jitter[1]).astype(np.float32)
    home_row, home_column = (y / spacing).astype(np.int64), (x / spacing).astype(np.int64)
    best = np.full((side, side), np.inf, np.float32)
    cell = np.zeros((side, side), np.int64)
    for row in range(3):  # the nearest site is in the pixel's square or a neighbouring one
        for column in range(3):
            candidate = (home_row + row) * across + home_column + column
            distance = (y - site_y.ravel()[candidate]) ** 2 + (x - site_x.ravel()[candidate]) ** 2
            closer = distance < best
            best = np.where(closer, distance, best)
            cell = np.where(closer, candidate, cell)
    return cell, across * across


def _line_distance(rng: np.random.Generator, side: int, wiggle: float, scale: float) -> Field:
    """Approximate distance in pixels to a winding line through the centre of the canvas."""
    along, across = _grid(side, rng.uniform(0, np.pi))
    line = random_curve(rng, 2 * side, scale) * wiggle * side + rng.uniform(-0.2, 0.2) * side
    index = np.clip(along + side, 0, 2 * side - 1).astype(np.int64)
    steepness = np.sqrt(1 + np.gradient(line) ** 2).astype(np.float32)
    return np.asarray(np.abs(across - line[index]) / steepness[index], dtype=np.float32)


def _parcels(rng: np.random.Generator, side: int, salt: int) -> Parcels:
    """Districts with one direction each, divided into strips, and strips into plots."""
    district, count = _cells(rng, side, 105)
    angle = rng.uniform(0, np.pi) + rng.choice([0, 0.5 * np.pi, 0.3, -0.4], count)
    width = rng.uniform(9, 26, count).astype(np.float32)[district]
    length = width * rng.uniform(1.3, 3.2, count).astype(np.float32)[district]
    across, along = _grid(side, angle.astype(np.float32)[district])
    strip = np.floor(across / width)
    along = along + length * hashed_uniform(salt, district, strip)
    plot = np.floor(along / length)
    halved = hashed_uniform(salt + 1, district, strip, plot) < 0.3
    half = np.floor(along / length * 2) * halved
    edge = np.minimum(across - strip * width, along - plot * length)
    code = ((district * 4096 + strip + 2048) * 4096 + plot + 2048) * 4096 + half + 2048
    number = np.unique(code.astype(np.int64), return_inverse=True)[1].reshape(side, side)
    return Parcels(number, edge.astype(np.float32), np.floor(across / 1.5).astype(np.int64))


def _paint_fields(
    ground: Ground, rng: np.random.Generator, parcels: Parcels, ripeness: float, salt: int
) -> None:
    """A crop and a tone for each plot, with moist patches, work rows and grassy edges."""
    side = len(parcels.edge)
    early, late = np.array(list(_CROPS.values())).T
    shares = np.cumsum((1 - ripeness) * early + ripeness * late)
    crop = np.searchsorted(shares[:-1] / shares[-1], hashed_uniform(salt + 2, parcels.number))
    materials = np.array([MATERIALS[name] for name in _CROPS])
    soil = np.where(rng.uniform() < 0.5, MATERIALS["light soil"], MATERIALS["dark soil"])
    patch = gaussian_field(rng, side, 35, 2.2)
    bare = 0.4 * hashed_uniform(salt + 3, parcels.number) ** 2 + 0.05 * patch
    tone = 0.84 + 0.32 * hashed_uniform(salt + 4, parcels.number)
    rows = 1 + 0.05 * (hashed_uniform(salt + 5, parcels.number, parcels.row) - 0.5)
    everywhere = np.ones((side, side), bool)
    ground.paint(
        everywhere, FIELDS, materials[crop],
        np.broadcast_to(soil, (side, side)), np.clip(bare, 0, 1).astype(np.float32),
        np.asarray(tone * rows * (1 + 0.03 * patch), dtype=np.float32),
    )  # fmt: skip
    verge = (parcels.edge < 1) & (hashed_uniform(salt + 6, parcels.number) < 0.6)
    hedge = np.full((side, side), 0.5, np.float32)
    ground.paint(verge, FIELDS, "meadow", "light soil", hedge, np.ones_like(hedge))


def _woods(
    rng: np.random.Generator, side: int, terrain: Field, parcels: Parcels, visible: slice
) -> Mask:
    """Woods on high ground, many of whose edges follow plot edges."""
    score = 0.5 * terrain + gaussian_field(rng, side, 110, 1.9)
    plots = parcels.number.ravel()
    mean = np.bincount(plots, score.ravel()) / np.bincount(plots)
    score = (0.65 * mean[parcels.number] + 0.35 * score).astype(np.float32)
    return np.asarray(score > np.quantile(score[visible, visible], 1 - rng.uniform(0.24, 0.36)))


def _paint_woods(ground: Ground, rng: np.random.Generator, mask: Mask) -> None:
    """Broadleaf and conifer stands with a rough canopy, and clearings of meadow."""
    side = len(mask)
    stand = smoothstep(gaussian_field(rng, side, 45, 2.0), -0.6, 0.6)
    canopy = np.clip(1 + 0.13 * gaussian_field(rng, side, 2.5, 1.6), 0.55, 1.5)
    ground.paint(mask, VEGETATION, "broadleaf", "conifer", stand, canopy)
    clearing = mask & (gaussian_field(rng, side, 30, 2.4) > 1.7)
    ground.paint(clearing, VEGETATION, "meadow", "broadleaf", 0.5 * stand, canopy**0.5)


def _town(rng: np.random.Generator, side: int, size: int, terrain: Field, visible: slice) -> Field:
    """Building density: positive inside one town and some villages, with ragged edges."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    density = np.full((side, side), -1, np.float32)
    for number in range(int(rng.integers(4, 7))):
        row, column = side / 2 + rng.uniform(-0.42, 0.42, 2) * size
        radius = size * (rng.uniform(0.16, 0.24) if number == 0 else rng.uniform(0.03, 0.08))
        distance = np.hypot(y - np.float32(row), x - np.float32(column)) / np.float32(radius)
        density = np.maximum(density, (1 - distance).astype(np.float32))
    density += 0.28 * gaussian_field(rng, side, size / 8, 2.0) - 0.05 * terrain
    return density - np.quantile(density[visible, visible], 1 - rng.uniform(0.11, 0.2)).astype(
        np.float32
    )


def _paint_town(ground: Ground, rng: np.random.Generator, density: Field, salt: int) -> None:
    """Street blocks with houses and gardens, flats in the centre, industrial halls and parks."""
    side = len(density)
    quarter, count = _cells(rng, side, 85)
    angle = (rng.uniform(0, 1) + rng.uniform(-0.7, 0.7, count)).astype(np.float32)
    across, along = _grid(side, angle[quarter])
    bend = gaussian_field(rng, side, 90, 3.0)
    across, along = across + 4 * bend, along - 4 * bend
    deep, wide = rng.uniform(7, 10), rng.uniform(11, 17)
    row, column = np.floor(across / deep), np.floor(along / wide)
    within = np.minimum(across - row * deep, along - column * wide)
    kind = hashed_uniform(salt + 7, quarter, row, column)
    built = density > 0
    y, x = np.mgrid[:side, :side]
    house = hashed_uniform(salt + 8, y, x)
    tone = 0.7 + 0.6 * hashed_uniform(salt + 9, y, x)
    green = np.clip(0.62 - 0.9 * density - 0.5 * house, 0.04, 0.6).astype(np.float32)
    ground.paint(built, BUILT_UP, "tiles", "meadow", green, tone)
    flats = built & (kind < 0.25 + 0.5 * density)
    ground.paint(flats, BUILT_UP, "asphalt", "concrete", house, tone)
    hall = np.floor(across / 4), np.floor(along / 6)
    roof = hashed_uniform(salt + 10, quarter, *hall)
    halls = built & (kind > 0.86)
    ground.paint(
        halls, BUILT_UP, "asphalt", "concrete", smoothstep(roof, 0.2, 0.8), 0.9 + 0.5 * roof
    )
    parks = built & (kind > 0.78) & (kind < 0.82) & (density > 0.06)
    ground.paint(parks, VEGETATION, "meadow", "broadleaf", house, 0.85 + 0.2 * tone)
    streets = built & ~parks & (within < 1)
    ground.paint(streets, BUILT_UP, "asphalt", "tiles", 0.35 * house, np.ones_like(tone))


def _paint_water(ground: Ground, rng: np.random.Generator, mask: Mask) -> None:
    """Clear to turbid water, with plumes and waves."""
    side = len(mask)
    murk = rng.uniform(0.05, 0.75) + 0.18 * gaussian_field(rng, side, 70, 2.4)
    waves = 1 + 0.04 * gaussian_field(rng, side, 4, 1.5)
    ground.paint(mask, WATER, "clear water", "turbid water", np.clip(murk, 0, 1), waves)
