"""`geotune fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from geotune.cli.console import Json, counting, err, out, print_json, recipe_of, say
from geotune.cli.metrics_table import metrics_table
from geotune.utils.text import pluralize

if TYPE_CHECKING:
    from geotune.api.fitting import FitResult


def fit(
    recipe: Path,
    *overrides: str,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> None:
    """Train a recipe; leaves a run folder with adapter, metrics and report.

    The same command goes on with a training that was cut off, and does nothing where it is done.

    Parameters
    ----------
    recipe
        The YAML file.
    overrides
        Changes to it, such as method.kind=lora train.epochs=5.
    fresh
        Start anew, removing what an earlier run left in the folder.
    """
    read = recipe_of(recipe, overrides)
    from geotune.api.fitting import fit_recipe, run_path

    with counting("features") as caching:
        result = fit_recipe(
            read,
            run_path(read, recipe),
            fresh=fresh,
            say=say,
            callbacks=_training_progress,
            caching=caching,
        )
    if result.main_process:
        _show_fit(result, as_json)


def _training_progress() -> list[Any]:
    from geotune.training.progress_bar import TrainingProgress  # imports Lightning

    return [TrainingProgress(err())]


def _show_fit(result: FitResult, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "run": str(result.run),
                "did": result.did,
                "metrics": result.metrics,
                "adapter": str(result.run / "adapter.safetensors"),
                "report": str(result.run / "report.html"),
                "summary": result.summary,
            }
        )
        return
    if result.did == "nothing":
        out().print(f"{result.run}: this recipe is trained already; --fresh starts anew")
    else:
        out().print(metrics_table("validation", result.metrics))
    summary, memory = result.summary, result.summary["peak_memory"]
    tensors, predicted = memory.get("tracked_bytes"), memory.get("predicted_bytes")
    out().print(
        f"{pluralize(summary['epochs'], 'epoch')} in {summary['seconds']:.0f} s, "
        f"best {summary['best_epoch']}; "
        f"{summary['trained_parameters']:,} of {summary['total_parameters']:,} parameters trained; "
        f"peak {memory['peak_bytes'] / 1e9:.2f} GB of {memory['kind']}"
        + (f"; tensors of a step {tensors / 1e9:.2f} GB" if tensors else "")
        + (f", predicted {predicted / 1e9:.2f} GB" if predicted else "")
    )
    out().print(f"adapter: {result.run / 'adapter.safetensors'}")
    out().print(f"report: {result.run / 'report.html'}")
