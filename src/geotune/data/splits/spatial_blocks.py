"""A split by blocks of ground: neighbours are alike, so they stay together.

A scene larger than a block is cut into blocks, each a scene of its own: no window crosses a border,
and half the buffer is left out on either side of it. Smaller scenes, such as chips, are in the
block of their centre, and what lies nearer to another part than the buffer is left out.

The blocks of small scenes are rows of one height along the meridian, each cut into blocks of one
width along its own middle parallel. So they have their side in metres anywhere on Earth, and do not
depend on which scenes there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geotune.data.raster.crs import METRES_PER_DEGREE
from geotune.data.raster.windows import Window
from geotune.data.scenes.footprints import Footprint, footprint, within_distance
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, random_split, require_splits
from geotune.datasets.base import PARTS
from geotune.errors import GeotuneError
from geotune.utils.text import join_some


def split_by_blocks(
    scenes: Sequence[Scene],
    *,
    side: str,
    buffer: str = "0 m",
    val: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    gone: Sequence[str] = (),
) -> Splits:
    """Blocks drawn at random into the parts; at least one for each share above 0.

    Args:
        scenes: the scenes; those that are cut have a side of two blocks or more.
        side: of the blocks, such as `2000 m` or `512 px`; those of a scene that is cut are no
            smaller, for they share it evenly.
        buffer: the least distance between two blocks of a scene, or two small scenes of two parts,
            in metres or pixels.
        val, test: shares of the blocks.
        seed: of the draw.
        gone: scenes that could not be read.

    Raises `GeotuneError` where a scene does not say its place, for a buffer as wide as the
    blocks, and where a part but test would be empty.
    """
    del gone  # no scene is named
    pieces: list[Scene] = []
    small: list[Scene] = []
    for scene in scenes:
        found = _cut(scene, side, buffer)
        if found is None:
            small.append(scene)
        else:
            pieces += found
    places = _places(small)
    if places:
        side_m = float(np.median([_in_metres(side, place) for place in places]))
        small = [
            replace(scene, group=_block(place, side_m))
            for scene, place in zip(small, places, strict=True)
        ]
    together = [*pieces, *small]
    drawn = random_split(sorted({scene.group for scene in together}), val=val, test=test, seed=seed)
    part_of = {group: part for part, groups in drawn.items() for group in groups}
    parts: Splits = {part: [] for part in PARTS}
    for scene in together:
        parts[part_of[scene.group]].append(scene)
    crowded = _crowded(parts, {place.scene: place for place in places}, buffer)
    return require_splits(
        {
            part: [scene for scene in members if scene.name not in crowded]
            for part, members in parts.items()
        },
        together,
    )


def _cut(scene: Scene, side: str, buffer: str) -> list[Scene] | None:
    """The blocks of a scene without half the buffer around each; None where it is but one."""
    length, gap = _in_pixels(side, scene), math.ceil(_in_pixels(buffer, scene))
    counts = [max(1, math.floor(pixels / length)) for pixels in scene.shape]
    if counts == [1, 1] or scene.labels.image_level:
        return None
    rows, cols = (
        [
            (start + (gap + 1) // 2 * (i > 0), end - gap // 2 * (i < count - 1))
            for i, (start, end) in enumerate(
                (pixels * k // count, pixels * (k + 1) // count) for k in range(count)
            )
        ]
        for pixels, count in zip(scene.shape, counts, strict=True)
    )
    if any(start >= end for start, end in (*rows, *cols)):
        raise GeotuneError(
            f"data.split.buffer {buffer}: leaves nothing of the blocks of {side} in "
            f"{scene.raster.path}; expected less than a block's side"
        )
    pieces = []
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(cols):
            name = f"{scene.name} block {i + 1}.{j + 1}"
            raster = scene.raster.crop(Window(top, left, bottom - top, right - left))
            pieces.append(replace(scene, name=name, group=name, raster=raster))
    return pieces


def _crowded(parts: Splits, places: dict[str, Footprint], buffer: str) -> set[str]:
    """Small scenes that lie nearer to another part's than the buffer: of the earlier part."""
    crowded: set[str] = set()
    placed = {
        part: [places[scene.name] for scene in members if scene.name in places]
        for part, members in parts.items()
    }
    for part, others in (("train", ("val", "test")), ("val", ("test",))):
        held = [place for other in others for place in placed[other]]
        if placed[part] and held:
            metres = max(_in_metres(buffer, place) for place in (*placed[part], *held))
            crowded |= within_distance(placed[part], held, metres)
    return crowded


def _places(scenes: Sequence[Scene]) -> list[Footprint]:
    found = [footprint(scene) for scene in scenes]
    silent = [str(s.raster.path) for s, place in zip(scenes, found, strict=True) if place is None]
    if silent:
        raise GeotuneError(
            f"{silent[0]}: is no larger than a block and does not say where it lies "
            f"({len(silent)} such: {join_some(silent)}); expected a CRS and a place, a smaller "
            "data.split.side, or another data.split"
        )
    return [place for place in found if place is not None]


def _block(place: Footprint, side_m: float) -> str:
    """The block that holds a scene's centre."""
    x, y, z = place.centre
    longitude = math.degrees(math.atan2(y, x))
    latitude = math.degrees(math.atan2(z, math.hypot(x, y)))
    row = math.floor(latitude * METRES_PER_DEGREE / side_m)
    middle = math.radians((row + 0.5) * side_m / METRES_PER_DEGREE)
    around = 360 * METRES_PER_DEGREE * max(math.cos(middle), 0)
    count = max(1, round(around / side_m))
    col = math.floor((longitude + 180) / 360 * count) % count
    return f"block {row},{col}"


def _in_pixels(width: str, scene: Scene) -> float:
    number = float(width.rstrip(" pxm"))
    if width.endswith("px") or not number:
        return number
    pixel = scene.raster.gsd_m
    if pixel is None:
        raise GeotuneError(
            f"{scene.raster.path}: does not say how large its pixels are, as data.split with "
            f"{width} needs it; give the widths in pixels, such as 512 px"
        )
    return number / pixel


def _in_metres(width: str, place: Footprint) -> float:
    number = float(width.rstrip(" pxm"))
    return number * place.gsd_m if width.endswith("px") else number
