"""Splits that name each scene: in lists, or in a column of the table that lists the scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, splits_of
from geotune.data.splits.groups import group_of
from geotune.datasets.base import PARTS
from geotune.errors import GeotuneError
from geotune.utils.text import join_some


def split_by_list(
    scenes: Sequence[Scene],
    *,
    train: Sequence[str] | Path,
    val: Sequence[str] | Path,
    test: Sequence[str] | Path = (),
    by: str = "scene",
    gone: Sequence[str] = (),
) -> Splits:
    """Scenes by name; a part may be a text file with a name on each line.

    A name may have its file's suffix; `by` says which region a scene is of (see `group_of`). Raises
    `GeotuneError` for a name that no scene has, one in two parts, and an empty part. `gone` are
    scenes that could not be read: here as elsewhere they may be named, and are in no part.
    """
    named = {
        part: _names(names) for part, names in (("train", train), ("val", val), ("test", test))
    }
    parts = splits_of(scenes, {scene.name: scene.name for scene in scenes}, named, "scene", gone)
    return {
        part: [replace(scene, group=group_of(scene, by)) for scene in members]
        for part, members in parts.items()
    }


def split_by_column(
    scenes: Sequence[Scene], *, by: str = "scene", gone: Sequence[str] = ()
) -> Splits:
    """Each image in the part that its labels name; `by` says which region it is of.

    Raises `GeotuneError` where they name none, or another one, and for an empty part.
    """
    silent = [scene.name for scene in scenes if scene.split is None]
    if silent:
        raise GeotuneError(
            f"data.split.kind column: no part is named for {join_some(silent, 10)}; give data.labels, a "
            "CSV with a column split, or use another data.split"
        )
    named = {part: [scene.name for scene in scenes if scene.split == part] for part in PARTS}
    return split_by_list(scenes, **named, by=by, gone=gone)


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
