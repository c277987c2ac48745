"""The parts of a split, and what every way to split does."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from geotune.data.scenes.scene import Scene
from geotune.datasets.base import PARTS
from geotune.errors import GeotuneError
from geotune.utils.text import join_some, pluralize

Splits = dict[str, list[Scene]]
"""The scenes of `train`, `val` and `test`; `test` may be empty."""


def splits_of(
    scenes: Sequence[Scene],
    groups: Mapping[str, str],
    named: Mapping[str, Sequence[str]],
    what: str,
    gone: Sequence[str] = (),
) -> Splits:
    """The scenes in the parts in which their groups are named.

    Args:
        scenes: the scenes.
        groups: the group of each scene, by the scene's name.
        named: the groups of each part; a name may have its file's suffix.
        what: a group is called in messages.
        gone: scenes that could not be read.

    Raises `GeotuneError` for a name that no group has, one in two parts, and an empty part.
    """
    known = set(groups.values())
    lost = {name for scene in gone for name in (scene, Path(scene).stem)}
    place_of: dict[str, str] = {}
    for part in PARTS:
        for name in named[part]:
            group = name if name in known else Path(name).stem
            if group not in known:
                if gone and (what != "scene" or lost & {name, group}):
                    continue  # its scenes could not be read, which is told
                raise GeotuneError(
                    f"data.split.{part}: there is no {what} {name!r}; {_nearest(group, known)}"
                )
            if place_of.setdefault(group, part) != part:
                raise GeotuneError(
                    f"data.split: {what} {group} is in {place_of[group]} and in {part}; "
                    "leave it in one"
                )
    parts: Splits = {part: [] for part in PARTS}
    for scene in scenes:
        place = place_of.get(groups[scene.name])
        if place is not None:
            parts[place].append(replace(scene, group=groups[scene.name]))
    return require_splits(parts, scenes)


def require_splits(parts: Splits, scenes: Sequence[Scene]) -> Splits:
    """The parts. Raises `GeotuneError` where none of the `scenes` trains or none validates."""
    for part in ("train", "val"):
        if not parts[part]:
            raise GeotuneError(
                f"data.split: no scene is left for {part} "
                f"({pluralize(len(scenes), 'scene')}: {join_some([scene.name for scene in scenes], 10)}); "
                "name fewer elsewhere or give more scenes"
            )
    return parts


def random_split(
    names: Sequence[str], *, val: float, test: float, seed: int
) -> dict[str, list[str]]:
    """Names drawn at random into the parts; at least one for each share above 0."""
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    counts = [max(1, round(share * len(names))) if share > 0 else 0 for share in (val, test)]
    held = sum(counts)
    return {
        "train": order[held:],
        "val": order[: counts[0]],
        "test": order[counts[0] : held],
    }


def subsample_train(parts: Splits, fraction: float, *, seed: int) -> Splits:
    """The parts with a share of the training scenes, rounded to whole ones, in their order.

    What a smaller share draws is in every larger one of the same seed. Raises `GeotuneError` where
    the share is less than half a scene.
    """
    scenes = parts["train"]
    count = math.floor(fraction * len(scenes) + 0.5)
    if count == 0:
        raise GeotuneError(
            f"data.fraction: {fraction:g} of {len(scenes)} training scenes is less than half of "
            f"one; scenes are used whole: give at least {0.5 / len(scenes):.2g}, or cut them into "
            "smaller files"
        )
    order = np.random.default_rng(seed).permutation(len(scenes))
    return {**parts, "train": [scenes[i] for i in sorted(order[:count])]}


def _nearest(name: str, known: Iterable[str]) -> str:
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {join_some(choices, 10)}"
