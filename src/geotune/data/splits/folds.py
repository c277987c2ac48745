"""Folds: each group of scenes is held out once, such as each region."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, random_split, require_splits
from geotune.data.splits.groups import group_of
from geotune.errors import GeotuneError
from geotune.utils.text import join_some


def split_into_folds(
    scenes: Sequence[Scene],
    *,
    fold: int | str,
    by: str = "scene",
    folds: int | None = None,
    val: float | None = None,
    seed: int = 0,
    gone: Sequence[str] = (),
) -> Splits:
    """One fold tests, the next one validates, the others train.

    Args:
        scenes: the scenes.
        fold: which fold tests: its number from 1 on, or the name of a group in it.
        by: what a group is, see `group_of`.
        folds: into how many the groups are put, about as many scenes in each; by default each
            group is a fold.
        val: in place of the next fold this share of the scenes that are left validates, drawn at
            random: scenes not seen of regions that are.
        seed: of that draw.
        gone: scenes that could not be read.

    Raises `GeotuneError` for a fold that is not there, and for too few groups.
    """
    del gone  # what is left of its groups is parted
    sizes = Counter(group_of(scene, by) for scene in scenes)
    parted = _folds(sizes, len(sizes) if folds is None else folds)
    least = 3 if val is None else 2
    if len(parted) < least:
        raise GeotuneError(
            f"data.split.folds: {len(parted)} folds of {len(sizes)} groups ({join_some(list(sizes))}); "
            f"expected at least {least}: one tests, one validates, the others train"
        )
    tested = _number(fold, parted)
    grouped = [replace(scene, group=group_of(scene, by)) for scene in scenes]
    rest = [scene for scene in grouped if scene.group not in parted[tested]]
    if val is None:
        held = {scene.name for scene in rest if scene.group in parted[(tested + 1) % len(parted)]}
    else:
        held = set(random_split(sorted(s.name for s in rest), val=val, test=0, seed=seed)["val"])
    return require_splits(
        {
            "train": [scene for scene in rest if scene.name not in held],
            "val": [scene for scene in rest if scene.name in held],
            "test": [scene for scene in grouped if scene.group in parted[tested]],
        },
        scenes,
    )


def _folds(sizes: Counter[str], count: int) -> list[list[str]]:
    """The groups in `count` folds, in the order of their names where each is one.

    Else the largest group first, each into the fold with the fewest scenes.
    """
    if count >= len(sizes):
        return [[group] for group in sorted(sizes)]
    folds: list[list[str]] = [[] for _ in range(count)]
    for group in sorted(sizes, key=lambda group: (-sizes[group], group)):
        min(folds, key=lambda fold: sum(sizes[name] for name in fold)).append(group)
    return folds


def _number(fold: int | str, folds: Sequence[Sequence[str]]) -> int:
    """The index of a fold that is named by its number from 1 on, or by a group in it."""
    groups = [group for members in folds for group in members]
    for index, members in enumerate(folds):
        if str(fold) in members:
            return index
    if str(fold).isdigit() and 1 <= int(fold) <= len(folds):
        return int(fold) - 1
    near = difflib.get_close_matches(str(fold), groups, n=1)
    raise GeotuneError(
        f"data.split.fold: found {fold!r}, expected 1 to {len(folds)} or one of "
        f"{join_some(groups, 10)}" + (f"; did you mean {near[0]}?" if near else "")
    )
