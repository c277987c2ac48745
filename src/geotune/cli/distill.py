"""`geotune distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geotune.cli.console import Json, message, show_progress
from geotune.cli.fit import show_fit


def distill(
    teacher: Path,
    *overrides: str,
    student: str,
    student_weights: Path | None = None,
    run: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> None:
    """Train a small model on the outputs and features of a finished run's model, and the labels.

    The teacher runs once over the training windows. The result is an ordinary run; re-running the
    command resumes an interrupted one.

    Parameters
    ----------
    teacher
        The folder of a finished run.
    overrides
        Changes of the student's recipe, such as distill.temperature=4 train.epochs=50.
    student
        Name of the small backbone, such as timm/resnet18; see geotune list backbones.
    student_weights
        File with the pretrained weights of the student's backbone.
    run
        The student's run folder; by default the teacher's with the name of the student.
    overwrite
        Start again and remove an earlier run from the folder.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.distilling import distill as distill_run
        result = distill_run(
            teacher,
            student,
            overrides,
            student_weights=student_weights,
            run=run,
            overwrite=overwrite,
            on_message=message,
            on_progress=on_progress,
        )
    if result.main_process:
        show_fit(result, as_json)
