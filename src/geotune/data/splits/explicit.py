"""Explicit splits: lists of scene names, or a column of the table that lists the scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from geotune.config.split_options import ColumnSplitOptions, ListSplitOptions
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, assign_splits
from geotune.data.splits.groups import group_of
from geotune.datasets.base import SPLIT_NAMES
from geotune.errors import GeotuneError
from geotune.utils.text import join_some


def split_by_list(
    scenes: Sequence[Scene], options: ListSplitOptions, *, failed: Sequence[str] = ()
) -> Splits:
    """Split scenes by name, with or without file suffix.

    Scenes that `failed` to be read may be listed. Raises `GeotuneError` for an unknown name, a name
    in two splits, and an empty split.
    """
    names = {split: _read_names(getattr(options, split)) for split in SPLIT_NAMES}
    return _split_by_name(scenes, names, options.by, failed)


def _split_by_name(
    scenes: Sequence[Scene], names: Mapping[str, Sequence[str]], by: str, failed: Sequence[str]
) -> Splits:
    splits = assign_splits(scenes, {s.name: s.name for s in scenes}, names, "scene", failed)
    return {
        split: [replace(scene, group=group_of(scene, by)) for scene in members]
        for split, members in splits.items()
    }


def split_by_column(
    scenes: Sequence[Scene], options: ColumnSplitOptions, *, failed: Sequence[str] = ()
) -> Splits:
    """Split scenes by the column `split` of their table.

    Raises `GeotuneError` for a scene without a split, and for an empty split.
    """
    unassigned = [scene.name for scene in scenes if scene.split is None]
    if unassigned:
        raise GeotuneError(
            f"data.split.kind column: no split for {join_some(unassigned, 10)}; set data.labels to "
            "a CSV with a column split, or use another data.split",
            code="split-unassigned",
            key="data.split",
        )
    names = {split: [s.name for s in scenes if s.split == split] for split in SPLIT_NAMES}
    return _split_by_name(scenes, names, options.by, failed)


def _read_names(names: Sequence[str] | Path) -> list[str]:
    if not isinstance(names, Path):
        return list(names)
    try:
        lines = names.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GeotuneError(
            f"{names}: cannot be read ({error}); expected a text file with a scene name per line",
            code="file-missing" if isinstance(error, FileNotFoundError) else "file-unreadable",
            key="data.split",
            file=names,
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
