"""The ground of a synthetic scene: where water, vegetation, fields and built-up land lie.

Everything is drawn on a square canvas of 10 m pixels. A pixel is a mixture of two materials of
`spectra.py` with a brightness, so that the ground does not depend on the bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geotune.data.synthetic.noise import Field, curve, noise, ramp, scatter
from geotune.data.synthetic.spectra import MATERIALS

WATER, VEGETATION, FIELDS, BUILT_UP = range(4)

_CROPS = {  # share of the plots early and late in the season
    "green crop": (0.34, 0.22),
    "young crop": (0.20, 0.10),
    "meadow": (0.18, 0.16),
    "ripe crop": (0.05, 0.20),
    "stubble": (0.02, 0.15),
    "light soil": (0.08, 0.10),
    "dark soil": (0.13, 0.07),
}

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]


@dataclass
class Ground:
    """What lies where, each `(side, side)`: the land-cover class and the look of every pixel.

    A pixel's reflectance is `brightness * ((1 - share) * first + share * second)`.
    """

    cover: NDArray[np.uint8]
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    share: Field
    brightness: Field

    def paint(
        self, where: Mask, cover: int, first: str | Index, second: str | Index,
        share: Field, brightness: Field,
    ) -> None:  # fmt: skip
        """Cover the pixels `where` with a mixture of two materials."""
        self.cover[where] = cover
        for layer, material in ((self.first, first), (self.second, second)):
            layer[where] = MATERIALS[material] if isinstance(material, str) else material[where]
        self.share[where] = share[where]
        self.brightness[where] = brightness[where]


@dataclass(frozen=True)
class Parcels:
    """The plots that farmland is divided into, each `(side, side)`.

    `number` runs from 0 over all plots, `edge` is the distance to the plot's edge in pixels and
    `row` the number of the strip along which the plot is worked.
    """

    number: Index
    edge: Field
    row: Index


def draw_ground(rng: np.random.Generator, side: int, size: int, ripeness: float) -> Ground:
    """Draw the land of a scene: `size` is the part of the canvas that is seen, in its middle.

    `ripeness` in 0 to 1 moves the crops from green to harvested.
    """
    seen = slice((side - size) // 2, (side - size) // 2 + size)
    terrain = noise(rng, side, size / 2.5, 2.4)
    salt = int(rng.integers(2**31))
    parcels = _parcels(rng, side, salt)
    ground = Ground(
        cover=np.full((side, side), FIELDS, np.uint8),
        first=np.zeros((side, side), np.uint8),
        second=np.zeros((side, side), np.uint8),
        share=np.zeros((side, side), np.float32),
        brightness=np.ones((side, side), np.float32),
    )
    _paint_fields(ground, rng, parcels, ripeness, salt)
    river = _line_distance(rng, side, wiggle=0.13, scale=size / 4)
    wooded = _woods(rng, side, terrain, parcels, seen)
    width = rng.uniform(2.0, 5.5) * (1 + 0.3 * noise(rng, side, 60, 2.5))
    wooded |= river < width + 1.5 + 3.5 * ramp(noise(rng, side, 25, 2), -0.5, 1.5)
    _paint_woods(ground, rng, wooded)
    town = _town(rng, side, size, terrain, seen)
    _paint_town(ground, rng, town, salt)
    lake = terrain < np.quantile(terrain[seen, seen], rng.uniform(0.05, 0.14))
    _paint_water(ground, rng, lake | (river < width))
    for _ in range(int(rng.integers(2, 4))):
        road = _line_distance(rng, side, wiggle=0.05, scale=size / 2) < rng.uniform(0.7, 1.2)
        share = rng.uniform(0.0, 0.3) * np.ones((side, side), np.float32)
        ground.paint(road & ~lake, BUILT_UP, "asphalt", "concrete", share, np.ones_like(share))
    slope = np.gradient(terrain, axis=0) + 0.6 * np.gradient(terrain, axis=1)  # sun: south-east
    land = ground.cover != WATER
    ground.brightness[land] *= np.clip(1 - 0.06 * slope / slope.std(), 0.8, 1.2)[land]
    return ground


def _grid(side: int, angle: float | Field) -> tuple[Field, Field]:
    """Pixel coordinates from the canvas's middle, turned by `angle`."""
    y, x = np.mgrid[:side, :side].astype(np.float32) - np.float32(side / 2)
    cos, sin = np.cos(angle), np.sin(angle)
    return (
        np.asarray(x * cos + y * sin, dtype=np.float32),
        np.asarray(y * cos - x * sin, dtype=np.float32),
    )


def _cells(rng: np.random.Generator, side: int, spacing: float) -> tuple[Index, int]:
    """Voronoi cells, about `spacing` wide: each pixel's cell number, and how many there are."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    across = int(side / spacing) + 3
    rows, columns = (np.arange(across) - 1)[:, None], (np.arange(across) - 1)[None, :]
    jitter = rng.uniform(0, spacing, (2, across, across))  # one site in each square of a grid
    site_y = (rows * spacing + jitter[0]).astype(np.float32)
    site_x = (columns * spacing + jitter[1]).astype(np.float32)
    home_row, home_column = (y / spacing).astype(np.int64), (x / spacing).astype(np.int64)
    best = np.full((side, side), np.inf, np.float32)
    cell = np.zeros((side, side), np.int64)
    for row in range(3):  # the nearest site is in the pixel's square or beside it
        for column in range(3):
            candidate = (home_row + row) * across + home_column + column
            distance = (y - site_y.ravel()[candidate]) ** 2 + (x - site_x.ravel()[candidate]) ** 2
            closer = distance < best
            best = np.where(closer, distance, best)
            cell = np.where(closer, candidate, cell)
    return cell, across * across


def _line_distance(rng: np.random.Generator, side: int, wiggle: float, scale: float) -> Field:
    """Distance in pixels (nearly) to a winding line that crosses the middle of the canvas."""
    along, across = _grid(side, rng.uniform(0, np.pi))
    line = curve(rng, 2 * side, scale) * wiggle * side + rng.uniform(-0.2, 0.2) * side
    place = np.clip(along + side, 0, 2 * side - 1).astype(np.int64)
    steepness = np.sqrt(1 + np.gradient(line) ** 2).astype(np.float32)
    return np.asarray(np.abs(across - line[place]) / steepness[place], dtype=np.float32)


def _parcels(rng: np.random.Generator, side: int, salt: int) -> Parcels:
    """Districts with a direction each, divided into strips and the strips into plots."""
    district, count = _cells(rng, side, 105)
    angle = rng.uniform(0, np.pi) + rng.choice([0, 0.5 * np.pi, 0.3, -0.4], count)
    width = rng.uniform(9, 26, count).astype(np.float32)[district]
    length = width * rng.uniform(1.3, 3.2, count).astype(np.float32)[district]
    across, along = _grid(side, angle.astype(np.float32)[district])
    strip = np.floor(across / width)
    along = along + length * scatter(salt, district, strip)
    plot = np.floor(along / length)
    halved = scatter(salt + 1, district, strip, plot) < 0.3
    half = np.floor(along / length * 2) * halved
    edge = np.minimum(across - strip * width, along - plot * length)
    code = ((district * 4096 + strip + 2048) * 4096 + plot + 2048) * 4096 + half + 2048
    number = np.unique(code.astype(np.int64), return_inverse=True)[1].reshape(side, side)
    return Parcels(number, edge.astype(np.float32), np.floor(across / 1.5).astype(np.int64))


def _paint_fields(
    ground: Ground, rng: np.random.Generator, parcels: Parcels, ripeness: float, salt: int
) -> None:
    """A crop and a tone for each plot, with moist patches, work rows, and grassy edges."""
    side = len(parcels.edge)
    early, late = np.array(list(_CROPS.values())).T
    shares = np.cumsum((1 - ripeness) * early + ripeness * late)
    crop = np.searchsorted(shares[:-1] / shares[-1], scatter(salt + 2, parcels.number))
    materials = np.array([MATERIALS[name] for name in _CROPS])
    soil = np.where(rng.uniform() < 0.5, MATERIALS["light soil"], MATERIALS["dark soil"])
    patch = noise(rng, side, 35, 2.2)
    bare = 0.4 * scatter(salt + 3, parcels.number) ** 2 + 0.05 * patch
    tone = 0.84 + 0.32 * scatter(salt + 4, parcels.number)
    rows = 1 + 0.05 * (scatter(salt + 5, parcels.number, parcels.row) - 0.5)
    everywhere = np.ones((side, side), bool)
    ground.paint(
        everywhere, FIELDS, materials[crop],
        np.broadcast_to(soil, (side, side)), np.clip(bare, 0, 1).astype(np.float32),
        np.asarray(tone * rows * (1 + 0.03 * patch), dtype=np.float32),
    )  # fmt: skip
    verge = (parcels.edge < 1) & (scatter(salt + 6, parcels.number) < 0.6)
    hedge = np.full((side, side), 0.5, np.float32)
    ground.paint(verge, FIELDS, "meadow", "light soil", hedge, np.ones_like(hedge))


def _woods(
    rng: np.random.Generator, side: int, terrain: Field, parcels: Parcels, seen: slice
) -> Mask:
    """Woods keep to the high ground, and many of their edges to those of plots."""
    wish = 0.5 * terrain + noise(rng, side, 110, 1.9)
    plots = parcels.number.ravel()
    mean = np.bincount(plots, wish.ravel()) / np.bincount(plots)
    wish = (0.65 * mean[parcels.number] + 0.35 * wish).astype(np.float32)
    return np.asarray(wish > np.quantile(wish[seen, seen], 1 - rng.uniform(0.24, 0.36)))


def _paint_woods(ground: Ground, rng: np.random.Generator, where: Mask) -> None:
    """Broadleaf and conifer stands with a rough canopy, and clearings of meadow."""
    side = len(where)
    stand = ramp(noise(rng, side, 45, 2.0), -0.6, 0.6)
    canopy = np.clip(1 + 0.13 * noise(rng, side, 2.5, 1.6), 0.55, 1.5)
    ground.paint(where, VEGETATION, "broadleaf", "conifer", stand, canopy)
    clearing = where & (noise(rng, side, 30, 2.4) > 1.7)
    ground.paint(clearing, VEGETATION, "meadow", "broadleaf", 0.5 * stand, canopy**0.5)


def _town(rng: np.random.Generator, side: int, size: int, terrain: Field, seen: slice) -> Field:
    """How dense a town is: above 0 inside one town and some villages, with ragged edges."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    density = np.full((side, side), -1, np.float32)
    for number in range(int(rng.integers(4, 7))):
        row, column = side / 2 + rng.uniform(-0.42, 0.42, 2) * size
        radius = size * (rng.uniform(0.16, 0.24) if number == 0 else rng.uniform(0.03, 0.08))
        distance = np.hypot(y - np.float32(row), x - np.float32(column)) / np.float32(radius)
        density = np.maximum(density, (1 - distance).astype(np.float32))
    density += 0.28 * noise(rng, side, size / 8, 2.0) - 0.05 * terrain
    return density - np.quantile(density[seen, seen], 1 - rng.uniform(0.11, 0.2)).astype(np.float32)


def _paint_town(ground: Ground, rng: np.random.Generator, density: Field, salt: int) -> None:
    """Streets around blocks: houses among gardens, flats in the centre, halls, and parks."""
    side = len(density)
    quarter, count = _cells(rng, side, 85)
    angle = (rng.uniform(0, 1) + rng.uniform(-0.7, 0.7, count)).astype(np.float32)
    across, along = _grid(side, angle[quarter])
    bend = noise(rng, side, 90, 3.0)
    across, along = across + 4 * bend, along - 4 * bend
    deep, wide = rng.uniform(7, 10), rng.uniform(11, 17)
    row, column = np.floor(across / deep), np.floor(along / wide)
    within = np.minimum(across - row * deep, along - column * wide)
    kind = scatter(salt + 7, quarter, row, column)
    built = density > 0
    y, x = np.mgrid[:side, :side]
    house = scatter(salt + 8, y, x)
    tone = 0.7 + 0.6 * scatter(salt + 9, y, x)
    green = np.clip(0.62 - 0.9 * density - 0.5 * house, 0.04, 0.6).astype(np.float32)
    ground.paint(built, BUILT_UP, "tiles", "meadow", green, tone)
    flats = built & (kind < 0.25 + 0.5 * density)
    ground.paint(flats, BUILT_UP, "asphalt", "concrete", house, tone)
    hall = np.floor(across / 4), np.floor(along / 6)
    roof = scatter(salt + 10, quarter, *hall)
    halls = built & (kind > 0.86)
    ground.paint(halls, BUILT_UP, "asphalt", "concrete", ramp(roof, 0.2, 0.8), 0.9 + 0.5 * roof)
    parks = built & (kind > 0.78) & (kind < 0.82) & (density > 0.06)
    ground.paint(parks, VEGETATION, "meadow", "broadleaf", house, 0.85 + 0.2 * tone)
    streets = built & ~parks & (within < 1)
    ground.paint(streets, BUILT_UP, "asphalt", "tiles", 0.35 * house, np.ones_like(tone))


def _paint_water(ground: Ground, rng: np.random.Generator, where: Mask) -> None:
    """Clear to turbid water, with plumes and a few waves."""
    side = len(where)
    murk = rng.uniform(0.05, 0.75) + 0.18 * noise(rng, side, 70, 2.4)
    waves = 1 + 0.04 * noise(rng, side, 4, 1.5)
    ground.paint(where, WATER, "clear water", "turbid water", np.clip(murk, 0, 1), waves)
