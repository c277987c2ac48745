"""Splits by group: a scene, a column of the scene table, or a substring of the scene's name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from geotune.config.split_options import GroupSplitOptions, RandomSplitOptions
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, assign_splits, random_split
from geotune.errors import GeotuneError


def group_of(scene: Scene, by: str) -> str:
    """The group of a scene.

    `by` is `scene`, a column of the table that lists the scenes, or a regular expression, searched
    in the scene's name, whose first capture group is the result. Raises `GeotuneError` for a scene
    without a group.
    """
    if by == "scene":
        return scene.name
    if by in scene.attributes:
        if not (value := scene.attributes[by].strip()):
            raise _error(f"the column {by} is empty for {scene.name}; fill it in")
        return value
    try:
        expression = re.compile(by)
    except re.error as error:
        raise _error(
            f"{by!r} is not a valid regular expression ({error}); expected `scene` or an "
            "expression such as ^([^_]+)_"
        ) from error
    if not expression.groups:
        columns = f"; the scenes have the columns {', '.join(scene.attributes)}"
        raise _error(
            f"{by!r} has no capture group; put the part of the name that is the group in "
            f"parentheses{columns if scene.attributes else ''}"
        )
    match = expression.search(scene.name)
    if match is None or match[1] is None:
        raise _error(f"{by!r} does not match the scene {scene.name}; change the expression")
    return match[1]


def split_by_group(
    scenes: Sequence[Scene], options: GroupSplitOptions, *, failed: Sequence[str] = ()
) -> Splits:
    """Hold out the named groups (see `group_of`); all others are used for training.

    Raises `GeotuneError` for an unknown group, a group in two splits, a scene without a group, and
    an empty split.
    """
    groups = {scene.name: group_of(scene, options.by) for scene in scenes}
    held_out = {*options.val, *options.test}
    train = [group for group in dict.fromkeys(groups.values()) if group not in held_out]
    names = {"train": train, "val": options.val, "test": options.test}
    unit = "scene" if options.by == "scene" else "group"
    return assign_splits(scenes, groups, names, unit, failed)


def split_at_random(
    scenes: Sequence[Scene], options: RandomSplitOptions, *, failed: Sequence[str] = ()
) -> Splits:
    """Assign whole groups (see `group_of`) at random; a fraction above 0 yields at least one.

    Raises `GeotuneError` if train or val would be empty.
    """
    groups = {scene.name: group_of(scene, options.by) for scene in scenes}
    names = sorted(set(groups.values()))
    drawn = random_split(names, val=options.val, test=options.test, seed=options.seed)
    return assign_splits(scenes, groups, drawn, "group", failed)


def _error(message: str) -> GeotuneError:
    return GeotuneError(f"data.split.by: {message}", code="split-groups", key="data.split.by")
