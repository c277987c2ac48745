"""Splits by group: a scene, or what a column or a part of the scenes' names says."""

from __future__ import annotations

import re
from collections.abc import Sequence

from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, random_split, splits_of
from geotune.errors import GeotuneError


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


def split_by_group(
    scenes: Sequence[Scene],
    *,
    by: str = "scene",
    val: Sequence[str],
    test: Sequence[str] = (),
    gone: Sequence[str] = (),
) -> Splits:
    """Groups (see `group_of`) held out by name; what is not named trains.

    Raises `GeotuneError` for a group that no scene has, one in two parts, a scene without a group,
    and an empty part.
    """
    groups = {scene.name: group_of(scene, by) for scene in scenes}
    held = {"val": list(val), "test": list(test)}
    taken = {*val, *test}
    rest = [group for group in dict.fromkeys(groups.values()) if group not in taken]
    what = "group" if by != "scene" else "scene"
    return splits_of(scenes, groups, {"train": rest, **held}, what, gone)


def split_at_random(
    scenes: Sequence[Scene],
    *,
    val: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    by: str = "scene",
    gone: Sequence[str] = (),
) -> Splits:
    """Whole groups (see `group_of`) drawn at random; at least one for each share above 0.

    Raises `GeotuneError` where a part but test would be empty.
    """
    groups = {scene.name: group_of(scene, by) for scene in scenes}
    drawn = random_split(sorted(set(groups.values())), val=val, test=test, seed=seed)
    return splits_of(scenes, groups, drawn, "group", gone)
