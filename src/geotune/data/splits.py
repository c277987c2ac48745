"""Splits: which scenes or chips train, validate and test. Always whole ones."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from geotune.data.scene import Scene
from geotune.types import GeotuneError

Parts = dict[str, list[Scene]]
"""The scenes of `train`, `val` and `test`; `test` may be empty."""


def split_by_list(
    scenes: Sequence[Scene],
    *,
    train: Sequence[str] | Path,
    val: Sequence[str] | Path,
    test: Sequence[str] | Path = (),
) -> Parts:
    """Scenes by name; a part may be a text file with a name on each line.

    A name may have its file's suffix. Raises `GeotuneError` for a name that no scene has, one in
    two parts, and an empty part.
    """
    named = {
        part: _names(names) for part, names in (("train", train), ("val", val), ("test", test))
    }
    return _parts(scenes, {scene.name: scene.name for scene in scenes}, named, "scene")


def split_at_random(
    scenes: Sequence[Scene], *, val: float = 0.2, test: float = 0.2, seed: int = 0
) -> Parts:
    """Whole scenes drawn at random; at least one for each share above 0.

    Raises `GeotuneError` where a part but test would be empty.
    """
    names = sorted(scene.name for scene in scenes)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    counts = {
        part: max(1, round(share * len(names))) if share > 0 else 0
        for part, share in (("val", val), ("test", test))
    }
    drawn = {
        "val": order[: counts["val"]],
        "test": order[counts["val"] : counts["val"] + counts["test"]],
        "train": order[counts["val"] + counts["test"] :],
    }
    return _parts(scenes, {name: name for name in names}, drawn, "scene")


def split_by_group(
    scenes: Sequence[Scene],
    *,
    by: str = "scene",
    val: Sequence[str],
    test: Sequence[str] = (),
) -> Parts:
    """Groups held out by name; what is not named trains.

    `by` is `scene`, or a regular expression that is searched in each scene's name and whose first
    group is the name of its group. Raises `GeotuneError` for a group that no scene has, one in
    two parts, a scene that the expression does not find, and an empty part.
    """
    groups = {scene.name: _group(scene.name, by) for scene in scenes}
    held = {"val": list(val), "test": list(test)}
    taken = {*val, *test}
    rest = [group for group in dict.fromkeys(groups.values()) if group not in taken]
    return _parts(scenes, groups, {"train": rest, **held}, "group" if by != "scene" else "scene")


def split_by_column(scenes: Sequence[Scene]) -> Parts:
    """Each image in the part that its labels name.

    Raises `GeotuneError` where they name none, or another one, and for an empty part.
    """
    silent = [scene.name for scene in scenes if scene.part is None]
    if silent:
        raise GeotuneError(
            f"data.split.kind column: no part is named for {_some(silent)}; give data.labels, a "
            "CSV with a column split, or use another data.split"
        )
    named = {
        part: [scene.name for scene in scenes if scene.part == part]
        for part in ("train", "val", "test")
    }
    return _parts(scenes, {scene.name: scene.name for scene in scenes}, named, "image")


def some_to_train(parts: Parts, fraction: float, *, seed: int) -> Parts:
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


def _group(name: str, by: str) -> str:
    if by == "scene":
        return name
    try:
        expression = re.compile(by)
    except re.error as error:
        raise GeotuneError(
            f"data.split.by: {by!r} is no regular expression ({error}); "
            "expected `scene` or one such as ^([^_]+)_"
        ) from error
    if not expression.groups:
        raise GeotuneError(
            f"data.split.by: {by!r} has no group; put the part of the name that is the group's in "
            "parentheses"
        )
    match = expression.search(name)
    if match is None or match[1] is None:
        raise GeotuneError(f"data.split.by: {by!r} does not match the scene {name}; widen it")
    return match[1]


def _names(names: Sequence[str] | Path) -> list[str]:
    if not isinstance(names, Path):
        return list(names)
    try:
        lines = names.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GeotuneError(
            f"{names}: cannot be read as a list of names ({error}); "
            "expected a text file with a name on each line"
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _parts(
    scenes: Sequence[Scene],
    groups: Mapping[str, str],
    named: Mapping[str, Sequence[str]],
    what: str,
) -> Parts:
    known = set(groups.values())
    part_of: dict[str, str] = {}
    for part in ("train", "val", "test"):
        for name in named[part]:
            group = name if name in known else Path(name).stem
            if group not in known:
                raise GeotuneError(
                    f"data.split.{part}: there is no {what} {name!r}; {_nearest(group, known)}"
                )
            if part_of.setdefault(group, part) != part:
                raise GeotuneError(
                    f"data.split: {what} {group} is in {part_of[group]} and in {part}; "
                    "leave it in one"
                )
    parts: Parts = {"train": [], "val": [], "test": []}
    for scene in scenes:
        place = part_of.get(groups[scene.name])
        if place is not None:
            parts[place].append(replace(scene, group=groups[scene.name]))
    for part in ("train", "val"):
        if not parts[part]:
            raise GeotuneError(
                f"data.split: no scene is left for {part} "
                f"({len(scenes)} scenes: {_some(scene.name for scene in scenes)}); "
                "name fewer elsewhere or give more scenes"
            )
    return parts


def _nearest(name: str, known: Iterable[str]) -> str:
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {_some(choices)}"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} more" if len(listed) > 10 else "")
