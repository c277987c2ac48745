"""Cross-validation: each group of scenes, such as a region, is held out once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from geotune.config.split_options import FoldSplitOptions
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, check_not_empty, random_split
from geotune.data.splits.groups import group_of
from geotune.errors import GeotuneError
from geotune.utils.text import did_you_mean, join_some


def split_into_folds(
    scenes: Sequence[Scene], options: FoldSplitOptions, *, failed: Sequence[str] = ()
) -> Splits:
    """Use one fold for testing, the next for validation and the others for training.

    With `options.val`, validation uses a random fraction of the scenes outside the test fold
    instead: unseen scenes of seen groups. `failed` is not used. Raises `GeotuneError` for an
    unknown fold, and for too few groups.
    """
    del failed
    sizes = Counter(group_of(scene, options.by) for scene in scenes)
    members = _make_folds(sizes, options.folds or len(sizes))
    minimum = 3 if options.val is None else 2
    if len(members) < minimum:
        raise GeotuneError(
            f"data.split.folds: found {len(members)} folds of {len(sizes)} groups "
            f"({join_some(list(sizes))}); expected at least {minimum}, to test, validate and train",
            code="split-groups",
            key="data.split.folds",
        )
    index = _find_fold(options.fold, members)
    grouped = [replace(scene, group=group_of(scene, options.by)) for scene in scenes]
    rest = [scene for scene in grouped if scene.group not in members[index]]
    if options.val is None:
        next_fold = members[(index + 1) % len(members)]
        val_names = {scene.name for scene in rest if scene.group in next_fold}
    else:
        names = sorted(scene.name for scene in rest)
        drawn = random_split(names, val=options.val, test=0, seed=options.seed)
        val_names = set(drawn["val"])
    return check_not_empty(
        {
            "train": [scene for scene in rest if scene.name not in val_names],
            "val": [scene for scene in rest if scene.name in val_names],
            "test": [scene for scene in grouped if scene.group in members[index]],
        },
        scenes,
    )


def _make_folds(sizes: Counter[str], count: int) -> list[list[str]]:
    """Distribute groups over folds.

    With a fold per group, folds are sorted by name. Otherwise groups are added in decreasing order
    of size, each to the fold with the fewest scenes.
    """
    if count >= len(sizes):
        return [[group] for group in sorted(sizes)]
    folds: list[list[str]] = [[] for _ in range(count)]
    for group in sorted(sizes, key=lambda group: (-sizes[group], group)):
        min(folds, key=lambda fold: sum(sizes[name] for name in fold)).append(group)
    return folds


def _find_fold(fold: int | str, folds: Sequence[Sequence[str]]) -> int:
    """The index of a fold, given its number, starting at 1, or one of its groups."""
    for index, members in enumerate(folds):
        if str(fold) in members:
            return index
    if str(fold).isdigit() and 1 <= int(fold) <= len(folds):
        return int(fold) - 1
    groups = [group for members in folds for group in members]
    raise GeotuneError(
        f"data.split.fold: found {fold!r}, expected 1 to {len(folds)} or one of "
        f"{join_some(groups, 10)}{did_you_mean(str(fold), groups)}",
        code="split-name-unknown",
        key="data.split.fold",
    )
