"""Splits: which scenes are used for training, validation and testing; helpers of all splitters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from geotune.data.scenes.scene import Scene
from geotune.datasets.base import SPLIT_NAMES
from geotune.errors import GeotuneError
from geotune.utils.text import join_some, nfc, pluralize, suggest

Splits = dict[str, list[Scene]]
"""The scenes of `train`, `val` and `test`; `test` may be empty."""


def assign_splits(
    scenes: Sequence[Scene],
    groups: Mapping[str, str],
    groups_by_split: Mapping[str, Sequence[str]],
    noun: str,
    failed: Sequence[str] = (),
) -> Splits:
    """Assign scenes to the split that lists their group.

    Args:
        scenes: the scenes; those whose group is not listed are in no split.
        groups: scene name to group.
        groups_by_split: the groups of each split; a name may have a file suffix.
        noun: name of a group in messages, such as `scene`.
        failed: names of scenes that could not be read, which may be listed too.

    Raises `GeotuneError` for an unknown group, a group in two splits, and an empty split.
    """
    known = set(groups.values())
    unreadable = {name for scene in failed for name in (scene, Path(scene).stem)}
    split_of: dict[str, str] = {}
    for split in SPLIT_NAMES:
        for name in map(nfc, groups_by_split[split]):
            group = name if name in known else Path(name).stem
            if group not in known:
                if failed and (noun != "scene" or unreadable & {name, group}):
                    continue  # its scenes could not be read, which is reported elsewhere
                hint = suggest(group, sorted(known), count=3)
                raise GeotuneError(
                    f"data.split.{split}: unknown {noun} {name!r}; {hint}",
                    code="split-name-unknown",
                    key=f"data.split.{split}",
                )
            if split_of.setdefault(group, split) != split:
                raise GeotuneError(
                    f"data.split: {noun} {group} is in both {split_of[group]} and {split}; "
                    "remove it from one of them",
                    code="split-conflict",
                    key="data.split",
                )
    splits: Splits = {split: [] for split in SPLIT_NAMES}
    for scene in scenes:
        group = groups[scene.name]
        if group in split_of:
            splits[split_of[group]].append(replace(scene, group=group))
    return check_not_empty(splits, scenes)


def check_not_empty(splits: Splits, scenes: Sequence[Scene]) -> Splits:
    """Return `splits`. Raises `GeotuneError` if none of the `scenes` is in train or in val."""
    for split, name in (("train", "training"), ("val", "validation")):
        if not splits[split]:
            raise GeotuneError(
                f"data.split: the {name} split is empty ({pluralize(len(scenes), 'scene')}: "
                f"{join_some([scene.name for scene in scenes], 10)}); assign fewer scenes to other "
                "splits or add scenes",
                code="split-empty",
                key="data.split",
            )
    return splits


def random_split(
    names: Sequence[str], *, val: float, test: float, seed: int
) -> dict[str, list[str]]:
    """Split names at random; a fraction above 0 yields at least one name."""
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    num_val, num_test = (
        max(1, round(fraction * len(names))) if fraction > 0 else 0 for fraction in (val, test)
    )
    held_out = num_val + num_test
    return {"train": order[held_out:], "val": order[:num_val], "test": order[num_val:held_out]}


def subsample_train(splits: Splits, fraction: float, *, seed: int) -> Splits:
    """Keep a random fraction of the training scenes, rounded to whole scenes, in their order.

    With the same seed, a smaller fraction is a subset of every larger one. Raises `GeotuneError`
    for less than half a scene.
    """
    scenes = splits["train"]
    count = math.floor(fraction * len(scenes) + 0.5)
    if count == 0:
        raise GeotuneError(
            f"data.fraction: {fraction:g} of {len(scenes)} training scenes is less than half a "
            f"scene; set at least {0.5 / len(scenes):.2g}, or cut the scenes into smaller files",
            code="split-empty",
            key="data.fraction",
        )
    order = np.random.default_rng(seed).permutation(len(scenes))
    return {**splits, "train": [scenes[i] for i in sorted(order[:count])]}
