"""Whether a run can teach a recipe: its task, classes, bands and data. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geotune.config import Recipe, load_recipe
from geotune.config.schema import files_of_recipe
from geotune.data.datamodule import DataModule
from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir
from geotune.utils.text import describe_changes, join_some

MAX_SHIFT = 0.01
"""Difference of a band's mean or deviation, in deviations, up to which images did not change."""
TASK_KEYS = ("kind", "level", "multilabel", "classes", "quantity", "unit", "objects")
"""Options of a task by which its outputs are compared."""


def check_teacher(recipe: Recipe, run: Path) -> None:
    """Raise `GeotuneError` if the teacher of a recipe is not finished, or has another task.

    `run` is the folder of the student's run.
    """
    assert recipe.distill is not None
    folder = RunDir(recipe.distill.run)
    path = folder.path
    if not folder.recipe.is_file():
        raise GeotuneError(
            f"distill.run {path}: found {'no run' if path.is_dir() else 'no folder'} there, "
            "expected the folder of a finished run (with recipe.yaml and run.json); check the path",
            code="file-missing",
            key="distill.run",
            file=path,
        )
    if path.resolve() == run.resolve():
        raise GeotuneError(
            f"distill.run {path}: found the run folder of the student itself; choose another "
            "train.run",
            code="settings-incompatible",
            key="distill.run",
            file=path,
        )
    if not folder.has_summary:
        raise GeotuneError(
            f"distill.run {path}: the run is not finished (it has no run.json); geotune fit {path} "
            f"resumes it, geotune finish {path} keeps its best epoch so far",
            code="run-incomplete",
            key="distill.run",
            file=path,
        )
    teacher = load_recipe(folder.recipe)[0]
    for key in TASK_KEYS:
        found, expected = getattr(recipe.task, key, None), getattr(teacher.task, key, None)
        if found != expected:
            raise GeotuneError(
                f"task.{key}: found {_text(found)}, but the teacher {path} was trained for "
                f"{_text(expected)}; use its task, or a teacher of this one (distill.run)",
                code="teacher-mismatch",
                key=f"task.{key}",
                file=path,
            )
    for section, name in files_of_recipe(teacher).items():
        raise GeotuneError(
            f"distill.run {path}: its {section} is a Python file ({name}), whose code a training "
            "does not run for another run; use a teacher without one",
            code="adapter-code",
            key="distill.run",
            file=path,
        )


def check_teacher_data(folder: RunDir, data: DataModule) -> None:
    """Raise `GeotuneError` if a teacher was trained on other bands, another split or other pixels.

    With another split, scenes that the teacher was trained on could be among those that the student
    is tested on.
    """
    trained: Mapping[str, Any] = folder.read_json("run")["data"]
    bands = data.statistics.bands
    if list(bands) != list(trained["bands"]):
        raise _mismatch(
            folder,
            "backbone.bands",
            f"found the bands {', '.join(bands)}, but the teacher {folder.path} reads "
            f"{', '.join(trained['bands'])}; use the same bands in the same order",
        )
    for split, names in trained["parts"].items():
        if changes := describe_changes(names, data.splits.get(split, [])):
            raise _mismatch(
                folder,
                "data.split",
                f"the {split} split differs from that of the teacher {folder.path}: "
                f"{changes}; the student would be tested on what its teacher has "
                "seen: use the same data and split, or train the teacher again on these",
            )
    columns = zip(
        bands, data.statistics.mean, data.statistics.std, trained["mean"], trained["std"],
        strict=True,
    )  # fmt: skip
    for band, mean, std, mean_then, std_then in columns:
        if max(abs(mean - mean_then), abs(std - std_then)) > MAX_SHIFT * std_then:
            raise _mismatch(
                folder,
                "data",
                f"the training images changed since the teacher {folder.path} was trained: band "
                f"{band} has mean {mean:.4g} and standard deviation {std:.4g}, expected "
                f"{mean_then:.4g} and {std_then:.4g}; restore the images, or train the teacher "
                "again",
            )


def _mismatch(folder: RunDir, key: str, problem: str) -> GeotuneError:
    return GeotuneError(f"{key}: {problem}", code="teacher-mismatch", key=key, file=folder.path)


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return join_some([str(item) for item in value])
    return str(value)
