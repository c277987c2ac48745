"""Spatial block split: neighbouring areas are similar, so they stay in one split.

A scene larger than a block is cut into blocks, each a scene of its own: no window crosses a border,
and half the buffer is excluded on either side. Smaller scenes, such as chips, belong to the block
of their centre; scenes closer than the buffer to another split are excluded.

The blocks of small scenes are rows of equal height along the meridian, each divided into blocks of
equal width along its central parallel. Their side is therefore correct in metres everywhere on
Earth, and they do not depend on the scenes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geotune.config.split_options import BlockSplitOptions
from geotune.data.raster.crs import METRES_PER_DEGREE
from geotune.data.raster.windows import Window
from geotune.data.scenes.footprints import Footprint, footprint, within_distance
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, check_not_empty, random_split
from geotune.datasets.base import SPLIT_NAMES
from geotune.errors import GeotuneError
from geotune.utils.text import join_some

_BLOCK = " block "
"""Between the name of a scene and the number of its block."""


def scene_of_block(name: str) -> str:
    """The name of the scene that a block with this name was cut from."""
    return name.rpartition(_BLOCK)[0]


def split_by_blocks(
    scenes: Sequence[Scene], options: BlockSplitOptions, *, failed: Sequence[str] = ()
) -> Splits:
    """Assign spatial blocks at random; a fraction above 0 yields at least one block.

    Scenes at least two blocks wide or high are cut, evenly, into blocks of at least the given side.
    The buffer applies between the blocks of a scene, and between small scenes in different splits.
    `failed` is not used. Raises `GeotuneError` for a small scene without a location, a buffer as
    wide as the blocks, and an empty train or val split.
    """
    del failed
    cut: list[Scene] = []
    small: list[Scene] = []
    for scene in scenes:
        blocks = _cut(scene, options.side, options.buffer)
        if blocks is None:
            small.append(scene)
        else:
            cut += blocks
    footprints = _footprints(small)
    if footprints:
        side_m = float(np.median([_to_metres(options.side, outline) for outline in footprints]))
        small = [
            replace(scene, group=_block_name(outline, side_m))
            for scene, outline in zip(small, footprints, strict=True)
        ]
    blocks = [*cut, *small]
    names = sorted({scene.group for scene in blocks})
    drawn = random_split(names, val=options.val, test=options.test, seed=options.seed)
    split_of = {group: split for split, groups in drawn.items() for group in groups}
    splits: Splits = {split: [] for split in SPLIT_NAMES}
    for scene in blocks:
        splits[split_of[scene.group]].append(scene)
    by_scene = {outline.scene: outline for outline in footprints}
    excluded = _within_buffer(splits, by_scene, options.buffer)
    return check_not_empty(
        {
            split: [scene for scene in members if scene.name not in excluded]
            for split, members in splits.items()
        },
        blocks,
    )


def _cut(scene: Scene, side: str, buffer: str) -> list[Scene] | None:
    """The blocks of a scene without half the buffer around each; None for a single block."""
    length, gap = _to_pixels(side, scene), math.ceil(_to_pixels(buffer, scene))
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
            f"data.split.buffer: {buffer} covers the blocks of {side} in {scene.raster.path} "
            "completely; expected less than the side of a block",
            code="split-buffer",
            key="data.split.buffer",
            file=scene.raster.path,
        )
    blocks = []
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(cols):
            name = f"{scene.name}{_BLOCK}{i + 1}.{j + 1}"
            raster = scene.raster.crop(Window(top, left, bottom - top, right - left))
            blocks.append(replace(scene, name=name, group=name, raster=raster))
    return blocks


def _within_buffer(splits: Splits, footprints: dict[str, Footprint], buffer: str) -> set[str]:
    """Small scenes closer than the buffer to a later split; train is first, test is last."""
    excluded: set[str] = set()
    located = {
        split: [footprints[scene.name] for scene in members if scene.name in footprints]
        for split, members in splits.items()
    }
    for split, later in (("train", ("val", "test")), ("val", ("test",))):
        others = [outline for other in later for outline in located[other]]
        if located[split] and others:
            metres = max(_to_metres(buffer, outline) for outline in (*located[split], *others))
            excluded |= within_distance(located[split], others, metres)
    return excluded


def _footprints(scenes: Sequence[Scene]) -> list[Footprint]:
    outlines = [footprint(scene) for scene in scenes]
    paths = [s.raster.path for s, outline in zip(scenes, outlines, strict=True) if outline is None]
    if paths:
        raise GeotuneError(
            f"{paths[0]}: the scene is not larger than a block and has no location ({len(paths)} "
            f"such: {join_some([str(path) for path in paths])}); expected a CRS and a transform, a "
            "smaller data.split.side, or another data.split",
            code="metadata-missing",
            key="data.split.side",
            file=paths[0],
        )
    return [outline for outline in outlines if outline is not None]


def _block_name(outline: Footprint, side_m: float) -> str:
    """The block that contains a scene's centre."""
    x, y, z = outline.centre
    longitude = math.degrees(math.atan2(y, x))
    latitude = math.degrees(math.atan2(z, math.hypot(x, y)))
    row = math.floor(latitude * METRES_PER_DEGREE / side_m)
    middle = math.radians((row + 0.5) * side_m / METRES_PER_DEGREE)
    circumference_m = 360 * METRES_PER_DEGREE * max(math.cos(middle), 0)
    count = max(1, round(circumference_m / side_m))
    col = math.floor((longitude + 180) / 360 * count) % count
    return f"block {row},{col}"


def _to_pixels(width: str, scene: Scene) -> float:
    number = float(width.rstrip(" pxm"))
    if width.endswith("px") or not number:
        return number
    gsd_m = scene.raster.gsd_m
    if gsd_m is None:
        raise GeotuneError(
            f"{scene.raster.path}: the pixel size is unknown, but data.split uses {width}; give "
            "widths in pixels, such as 512 px",
            code="metadata-missing",
            key="data.split",
            file=scene.raster.path,
        )
    return number / gsd_m


def _to_metres(width: str, outline: Footprint) -> float:
    number = float(width.rstrip(" pxm"))
    return number * outline.gsd_m if width.endswith("px") else number
