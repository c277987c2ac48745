"""`geotune pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geotune.cli.console import Json, message, show_progress
from geotune.cli.fit import show_fit


def pretrain(
    recipe: Path,
    *overrides: str,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    estimate_memory: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> None:
    """Continue the pretraining of a recipe's backbone on its images; labels are not read.

    Patches of the images are hidden, and the model learns to reconstruct them and to keep the
    features of the original backbone. The run folder, by default runs/RECIPE_pretrain, has
    backbone.safetensors for backbone.weights of later recipes, or an adapter for geotune fit
    --from; geotune plan --pretrain estimates the memory. Re-running the command resumes an
    interrupted run.

    Parameters
    ----------
    recipe
        The YAML file, of any task or without task and decoder, or the folder of a run to resume or
        to continue.
    overrides
        Changes, such as method.kind=full task.mask_ratio=0.75 train.epochs=50.
    overwrite
        Start again and remove an earlier run from the folder.
    estimate_memory
        Also estimate the memory of a step, as geotune plan does, and record it in the run.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.pretraining import pretrain as pretrain_recipe
        result = pretrain_recipe(
            recipe,
            overrides,
            overwrite=overwrite,
            estimate_memory=estimate_memory,
            on_message=message,
            on_progress=on_progress,
        )
    if result.main_process:
        show_fit(result, as_json)
