"""A split that does not leak: given lists and folders first, then groups, places and scenes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geotune.api.init.layout import PLACE, Layout, find_lists
from geotune.api.init.pairing import SPLIT_WORDS
from geotune.config.split_options import BlockSplitOptions
from geotune.data.raster.windows import Window
from geotune.data.scenes.footprints import areas, circles, footprint
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import random_split
from geotune.data.splits.groups import group_of
from geotune.data.splits.spatial_blocks import split_by_blocks
from geotune.datasets.base import SPLIT_NAMES
from geotune.errors import GeotuneError
from geotune.utils.text import join_some, pluralize

SHARE = 0.2
"""Of the groups for validation, and of those for testing."""

TRIED_SEEDS = 200
TRAIN_WEIGHT = 3
"""A class that is missing from training is worse than from another split."""

MANY_GROUPS = 20
"""More groups are drawn by seed, fewer are named."""

MIN_GROUPS = 3
MIN_BLOCKS = 8
"""Blocks that few scenes are cut into, at least."""


class SplitChoice(NamedTuple):
    """The values of `data.split`, and why."""

    values: dict[str, Any]
    comment: str


def split_choices(
    folder: Path,
    layout: Layout,
    scenes: Sequence[Scene],
    counts: NDArray[np.int64],
    window: int,
) -> Iterator[SplitChoice]:
    """Yield splits, the best first.

    Args:
        folder: in which lists of scenes may be.
        layout: of the files.
        scenes: all scenes.
        counts: labels of each class in each scene, `(scenes, classes)`.
        window: side in pixels.
    """
    if layout.published_split:
        yield SplitChoice({"kind": "published"}, "the one that was published with the data")
    if "split" in layout.columns and all(scene.split for scene in scenes):
        yield SplitChoice({"kind": "column"}, "the split in the table")
    names = {scene.name for scene in scenes}
    if lists := find_lists(folder, names):
        values = {split: str(lists[split]) for split in SPLIT_NAMES if split in lists}
        yield SplitChoice({"kind": "list", **values}, "the lists of names beside the data")
    if choice := _by_part(layout):
        yield choice
    if PLACE in layout.columns and len({scene.attributes[PLACE] for scene in scenes}) >= MIN_GROUPS:
        yield _drawn(scenes, counts, PLACE, "all dates of a place stay in one split")
    around = circles(scenes)
    groups = areas(scenes, around)
    located = not np.isnan(around).any()
    apart = located and len(set(groups)) == len(scenes)
    if (by := _name_groups(scenes, groups if located else None, counts)) is not None:
        yield _drawn(scenes, counts, by, "scenes whose names start alike stay in one split")
    if located and not apart and not scenes[0].labels.image_level:
        yield from _neighbours(scenes, groups, counts, window)
    if len(scenes) <= 2:
        yield from _cut(scenes, counts, window)
    reason = (
        "whole scenes are held out; they do not adjoin"
        if apart
        else "whole scenes are held out; if several show one place, name it with `by`, so that "
        "they stay together"
    )
    if len(scenes) >= MIN_GROUPS:
        yield _drawn(scenes, counts, "scene", reason)
    elif len(scenes) == 2:
        yield SplitChoice(
            {"kind": "group", "val": [scenes[1].name]},
            "two scenes: the second one selects the best epoch, and none is left for a test",
        )


def _by_part(layout: Layout) -> SplitChoice | None:
    """The split by folders such as train and val."""
    folders: dict[str, list[str]] = defaultdict(list)
    for part in layout.parts:
        folders[SPLIT_WORDS[part.lower()]].append(part)
    if "train" not in folders or len(folders) < 2:
        return None
    values: dict[str, Any] = {"kind": "group", "by": "part"}
    if "val" not in folders:
        values["val"] = folders["test"]
        return SplitChoice(
            values,
            "the folders of the data; the test folder also selects the best epoch, as there is "
            "none for validation: its metrics are too good for an independent test",
        )
    values["val"] = folders["val"]
    if "test" in folders:
        values["test"] = folders["test"]
    return SplitChoice(values, "the folders of the data")


def _name_groups(
    scenes: Sequence[Scene], places: Sequence[int] | None, counts: NDArray[np.int64]
) -> str | None:
    """An expression for the start of names that groups scenes; None without such groups.

    Every class that is in three scenes must be in three groups, or the groups are the classes.
    With `places`, scenes of one place must be in one group.
    """
    for rest in (3, 2, 1):
        by = f"^(.+){r'[_-][^_-]+' * rest}$"
        matches = [re.search(by, scene.name) for scene in scenes]
        groups = [match[1] for match in matches if match is not None]
        if len(groups) < len(scenes) or not 5 <= len(set(groups)) <= len(scenes) / 2:
            continue
        if places is not None and _splits_any(places, groups):
            continue
        numbers = np.unique(groups, return_inverse=True)[1]
        present = counts > 0
        in_groups = np.stack([present[numbers == i].any(axis=0) for i in set(numbers.tolist())])
        if (in_groups.sum(axis=0) >= np.minimum(present.sum(axis=0), MIN_GROUPS)).all():
            return by
    return None


def _splits_any(places: Sequence[int], groups: Sequence[str]) -> bool:
    """Whether scenes of one place are in several groups."""
    by_place: dict[int, set[str]] = defaultdict(set)
    for place, group in zip(places, groups, strict=True):
        by_place[place].add(group)
    return any(len(found) > 1 for found in by_place.values())


def _drawn(scenes: Sequence[Scene], counts: NDArray[np.int64], by: str, reason: str) -> SplitChoice:
    """Groups drawn so that each split has about its share of each class."""
    groups = [group_of(scene, by) for scene in scenes]
    names = sorted(set(groups))
    numbers = np.array([names.index(group) for group in groups])
    by_group = np.zeros((len(names), counts.shape[1]))
    np.add.at(by_group, numbers, counts)
    seed, balance = _best_seed(names, by_group)
    drawn = random_split(names, val=SHARE, test=SHARE, seed=seed)
    if len(names) > MANY_GROUPS:
        values: dict[str, Any] = {"kind": "random", "val": SHARE, "test": SHARE, "seed": seed}
    else:
        values = {"kind": "group", "val": sorted(drawn["val"]), "test": sorted(drawn["test"])}
    if by != "scene":
        values["by"] = by
        reason += f" ({len(names)}: {join_some(names, 4)})"
    return SplitChoice(values, f"{reason}; {balance}")


def _best_seed(names: Sequence[str], counts: NDArray[Any]) -> tuple[int, str]:
    """The seed whose splits have the most even shares of each class, and what it achieves.

    Args:
        names: of the groups, as `random_split` gets them.
        counts: labels `(groups, classes)`.
    """
    present = counts[:, counts.sum(axis=0) > 0]
    worst, seed = min((_imbalance(names, present, seed), seed) for seed in range(TRIED_SEEDS))
    if worst >= 1:
        return seed, "some classes are in too few places for every split to have them"
    return seed, "drawn so that every split has labels of every class"


def _imbalance(names: Sequence[str], counts: NDArray[np.float64], seed: int) -> float:
    """How far the classes' shares in the splits are from those wanted; 1 if one is missing."""
    drawn = random_split(names, val=SHARE, test=SHARE, seed=seed)
    where = {name: i for i, name in enumerate(names)}
    missing, distance = 0, 0.0
    for split, wanted in (("train", 1 - 2 * SHARE), ("val", SHARE), ("test", SHARE)):
        share = counts[[where[name] for name in drawn[split]]].sum(axis=0) / counts.sum(axis=0)
        missing += int((share == 0).sum()) * (TRAIN_WEIGHT if split == "train" else 1)
        distance = max(distance, float(np.abs(share - wanted).max(initial=0)))
    return missing + distance


def _neighbours(
    scenes: Sequence[Scene], groups: Sequence[int], counts: NDArray[np.int64], window: int
) -> Iterator[SplitChoice]:
    """Spatial blocks for scenes that adjoin."""
    outlines = [outline for scene in scenes if (outline := footprint(scene)) is not None]
    extent = float(np.linalg.norm(np.ptp([outline.centre for outline in outlines], axis=0)))
    radius = float(np.median([outline.radius_m for outline in outlines]))
    gsd = float(np.median([outline.gsd_m for outline in outlines]))
    areas = f"{pluralize(len(set(groups)), 'area')} of {pluralize(len(scenes), 'scene')}"
    reason = f"scenes adjoin ({areas}): blocks keep neighbours in one split"
    for parts in (6, 10, 4):
        side = max(extent / parts, 2 * radius)
        for buffer in (window * gsd, 0.0):
            if side >= 2 * buffer:
                yield from _blocks(scenes, counts, f"{side:.0f} m", f"{buffer:.0f} m", reason)


def _cut(scenes: Sequence[Scene], counts: NDArray[np.int64], window: int) -> Iterator[SplitChoice]:
    """Blocks of one or two scenes."""
    reason = (
        f"{pluralize(len(scenes), 'scene')}, cut into blocks with a buffer between them; blocks of "
        "one scene are alike: test on another scene if you can"
    )
    for factor in (4, 3, 2, 1):
        side, buffer = factor * window, window if factor > 2 else window // 2
        sizes = [[max(1, pixels // side) for pixels in scene.shape] for scene in scenes]
        if sum(rows * columns for rows, columns in sizes) >= MIN_BLOCKS:
            yield from _blocks(scenes, counts, f"{side} px", f"{buffer} px", reason)


def _blocks(
    scenes: Sequence[Scene], counts: NDArray[np.int64], side: str, buffer: str, reason: str
) -> Iterator[SplitChoice]:
    """Blocks with the seed that shares out the classes most evenly, if the scenes allow them."""
    values = {"kind": "blocks", "side": side, "buffer": buffer, "val": SHARE, "test": SHARE}
    try:
        splits = split_by_blocks(scenes, BlockSplitOptions.model_validate(values))
    except GeotuneError:
        return
    of_scene = {scene.name: row for scene, row in zip(scenes, counts, strict=True)}
    of_block: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros_like(counts[0]))
    for block in (scene for members in splits.values() for scene in members):
        known = of_scene.get(block.name)
        of_block[block.group] += _count(block) if known is None else known
    names = sorted(of_block)
    seed, balance = _best_seed(names, np.stack([of_block[name] for name in names]))
    yield SplitChoice({**values, "seed": seed}, f"{reason}; {balance}")


def _count(scene: Scene) -> NDArray[np.int64]:
    """Labels of each class in a scene."""
    counts = np.zeros(len(scene.labels.classes), dtype=np.int64)
    for index, positions in scene.read_labels(Window(0, 0, *scene.shape)).class_positions():
        counts[index] = len(positions)
    return counts
