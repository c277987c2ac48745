"""Splits: which scenes or chips train, validate and test. Always whole ones."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from geotune.data.findings import some
from geotune.data.scene import Scene
from geotune.types import GeotuneError

Parts = dict[str, list[Scene]]
"""The scenes of `train`, `val` and `test`; `test` may be empty."""

PARTS = ("train", "val", "test")


def split_by_list(
    scenes: Sequence[Scene],
    *,
    train: Sequence[str] | Path,
    val: Sequence[str] | Path,
    test: Sequence[str] | Path = (),
    by: str = "scene",
    gone: Sequence[str] = (),
) -> Parts:
    """Scenes by name; a part may be a text file with a name on each line.

    A name may have its file's suffix; `by` says which region a scene is of (see `group_of`). Raises
    `GeotuneError` for a name that no scene has, one in two parts, and an empty part. `gone` are
    scenes that could not be read: here as elsewhere they may be named, and are in no part.
    """
    named = {
        part: _names(names) for part, names in (("train", train), ("val", val), ("test", test))
    }
    parts = _parts(scenes, {scene.name: scene.name for scene in scenes}, named, "scene", gone)
    return {
        part: [replace(scene, group=group_of(scene, by)) for scene in members]
        for part, members in parts.items()
    }


def split_at_random(
    scenes: Sequence[Scene],
    *,
    val: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    by: str = "scene",
    gone: Sequence[str] = (),
) -> Parts:
    """Whole groups (see `group_of`) drawn at random; at least one for each share above 0.

    Raises `GeotuneError` where a part but test would be empty.
    """
    groups = {scene.name: group_of(scene, by) for scene in scenes}
    drawn = draw(sorted(set(groups.values())), val=val, test=test, seed=seed)
    return _parts(scenes, groups, drawn, "group", gone)


def draw(names: Sequence[str], *, val: float, test: float, seed: int) -> dict[str, list[str]]:
    """Names drawn at random into the parts; at least one for each share above 0."""
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    counts = [max(1, round(share * len(names))) if share > 0 else 0 for share in (val, test)]
    held = sum(counts)
    return {
        "train": order[held:],
        "val": order[: counts[0]],
        "test": order[counts[0] : held],
    }


def split_by_group(
    scenes: Sequence[Scene],
    *,
    by: str = "scene",
    val: Sequence[str],
    test: Sequence[str] = (),
    gone: Sequence[str] = (),
) -> Parts:
    """Groups (see `group_of`) held out by name; what is not named trains.

    Raises `GeotuneError` for a group that no scene has, one in two parts, a scene without a group,
    and an empty part.
    """
    groups = {scene.name: group_of(scene, by) for scene in scenes}
    held = {"val": list(val), "test": list(test)}
    taken = {*val, *test}
    rest = [group for group in dict.fromkeys(groups.values()) if group not in taken]
    what = "group" if by != "scene" else "scene"
    return _parts(scenes, groups, {"train": rest, **held}, what, gone)


def split_by_column(
    scenes: Sequence[Scene], *, by: str = "scene", gone: Sequence[str] = ()
) -> Parts:
    """Each image in the part that its labels name; `by` says which region it is of.

    Raises `GeotuneError` where they name none, or another one, and for an empty part.
    """
    silent = [scene.name for scene in scenes if scene.part is None]
    if silent:
        raise GeotuneError(
            f"data.split.kind column: no part is named for {some(silent, 10)}; give data.labels, a "
            "CSV with a column split, or use another data.split"
        )
    named = {
        part: [scene.name for scene in scenes if scene.part == part]
        for part in ("train", "val", "test")
    }
    return split_by_list(scenes, **named, by=by, gone=gone)


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


def group_of(scene: Scene, by: str) -> str:
    """The group of a scene.

    `by` is `scene`, a column of the table that lists the scenes, or a regular expression that is
    searched in the scene's name and whose first group is the name of its group. Raises
    `GeotuneError` for a scene that has none.
    """
    if by == "scene":
        return scene.name
    if by in scene.attributes:
        if not (value := scene.attributes[by].strip()):
            raise GeotuneError(f"data.split.by: column {by} is empty for {scene.name}; fill it in")
        return value
    try:
        expression = re.compile(by)
    except re.error as error:
        raise GeotuneError(
            f"data.split.by: {by!r} is no regular expression ({error}); "
            "expected `scene` or one such as ^([^_]+)_"
        ) from error
    if not expression.groups:
        columns = f"; the scenes have the columns {', '.join(scene.attributes)}"
        raise GeotuneError(
            f"data.split.by: {by!r} has no group; put the part of the name that is the group's in "
            f"parentheses{columns if scene.attributes else ''}"
        )
    match = expression.search(scene.name)
    if match is None or match[1] is None:
        raise GeotuneError(f"data.split.by: {by!r} does not match the scene {scene.name}; widen it")
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
    gone: Sequence[str] = (),
) -> Parts:
    known = set(groups.values())
    lost = {name for scene in gone for name in (scene, Path(scene).stem)}
    part_of: dict[str, str] = {}
    for part in PARTS:
        for name in named[part]:
            group = name if name in known else Path(name).stem
            if group not in known:
                if gone and (what != "scene" or lost & {name, group}):
                    continue  # its scenes could not be read, which is told
                raise GeotuneError(
                    f"data.split.{part}: there is no {what} {name!r}; {_nearest(group, known)}"
                )
            if part_of.setdefault(group, part) != part:
                raise GeotuneError(
                    f"data.split: {what} {group} is in {part_of[group]} and in {part}; "
                    "leave it in one"
                )
    parts: Parts = {part: [] for part in PARTS}
    for scene in scenes:
        place = part_of.get(groups[scene.name])
        if place is not None:
            parts[place].append(replace(scene, group=groups[scene.name]))
    return require_parts(parts, scenes)


def require_parts(parts: Parts, scenes: Sequence[Scene]) -> Parts:
    """The parts. Raises `GeotuneError` where none of the `scenes` trains or none validates."""
    for part in ("train", "val"):
        if not parts[part]:
            raise GeotuneError(
                f"data.split: no scene is left for {part} "
                f"({len(scenes)} scenes: {some([scene.name for scene in scenes], 10)}); "
                "name fewer elsewhere or give more scenes"
            )
    return parts


def _nearest(name: str, known: Iterable[str]) -> str:
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {some(choices, 10)}"
