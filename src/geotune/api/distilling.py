"""`geotune distill`: train a small model on what a finished run's model gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from geotune.api.fitting import FitResult, fit
from geotune.api.recipes import OnMessage, as_recipe, ignore_message
from geotune.config import Recipe, load_recipe
from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir
from geotune.utils.progress import OnProgress, ignore_progress

OF_TEACHER = (
    "run", "start_from", "backbone_lr", "layer_decay", "accumulate_steps",
    "activation_checkpointing", "memory_budget", "cache", "strategy", "compile",
)  # fmt: skip
"""Options of `train` that suit the teacher's backbone and method; a student has the defaults."""


def distill(
    teacher: Path | str,
    student: str,
    overrides: Sequence[str] = (),
    *,
    student_weights: Path | str | None = None,
    run: Path | str | None = None,
    overwrite: bool = False,
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
    callbacks: Callable[[], Sequence[Any]] = list,
) -> FitResult:
    """Train a small model on the outputs and features of a finished run's model, and the labels.

    The teacher runs once over the training windows, not in every epoch. The result is an ordinary
    run of the recipe that `student_recipe` gives.

    Args:
        teacher: the folder of a finished run.
        student: name of the small backbone, such as `timm/resnet18`.
        overrides: changes of the student's recipe, such as `distill.temperature=4`.
        student_weights: a file with the pretrained weights of the student's backbone.
        run: the student's run folder; by default beside the teacher's.
        overwrite: start again and remove an earlier run from the folder.
        on_message: receives progress messages and notes.
        on_progress: receives the progress of each phase.
        callbacks: creates Lightning callbacks for the training.

    Raises `GeotuneError` for a teacher that is not finished, or that has another task or other data
    than the overrides ask for, for a student with more parameters than its teacher, and as `fit`
    does.
    """
    recipe = student_recipe(
        teacher, student, overrides, student_weights=student_weights, on_message=on_message
    )
    if run is None:
        path = Path(teacher)
        run = recipe.train.run or path.parent / f"{path.name}-{student.rpartition('/')[2]}"
    return fit(
        recipe,
        run=run,
        overwrite=overwrite,
        on_message=on_message,
        on_progress=on_progress,
        callbacks=callbacks,
    )


def student_recipe(
    teacher: Path | str,
    student: str,
    overrides: Sequence[str] = (),
    *,
    student_weights: Path | str | None = None,
    on_message: OnMessage = ignore_message,
) -> Recipe:
    """The recipe of a student: the teacher's data, task, decoder and training on a small backbone.

    All of the student trains (`method: {kind: full}`), unless an override says otherwise. Arguments
    as of `distill`. Raises `GeotuneError` if there is no run, or for an invalid recipe.
    """
    folder = RunDir(Path(teacher))
    asked = folder.requested_recipe if folder.requested_recipe.is_file() else folder.recipe
    if not asked.is_file():
        raise GeotuneError(
            f"{folder.path}: holds no run (no recipe.yaml); give the folder of a finished run as "
            "the teacher",
            code="file-missing",
            key="distill.run",
            file=folder.path,
        )
    values = load_recipe(asked)[0].model_dump(mode="json")
    before = values["backbone"]
    bands = before["bands"]
    if isinstance(bands, dict):  # of several modalities, joined in this order
        bands = [name for names in bands.values() for name in names]
    values["backbone"] = {
        "name": student,
        "weights": None if student_weights is None else str(student_weights),
        "bands": bands,
        "timesteps": before["timesteps"],
    }
    values["method"] = {"kind": "full"}
    values["train"] = {key: v for key, v in values["train"].items() if key not in OF_TEACHER}
    values["distill"] = {"run": str(teacher)}
    return as_recipe(values, overrides, on_message)
