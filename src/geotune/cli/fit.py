"""`geotune fit`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json, print_table, show_progress
from geotune.cli.metrics_table import metrics_table
from geotune.utils.text import pluralize

if TYPE_CHECKING:
    from geotune.api.fitting import FitResult


PREDICTIONS = {
    "segment": "class maps and polygons",
    "detect": "objects",
    "classify": "a table of classes",
    "regress": "maps of numbers",
    "density": "density maps and counts",
}


def fit(
    recipe: Path,
    *overrides: str,
    start_from: Annotated[Path | None, Parameter(name="--from")] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    estimate_memory: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> None:
    """Train a recipe and write a run folder with adapter, metrics and report.

    Re-running the command resumes an interrupted run and does nothing if the run is complete.
    geotune fit RUN train.epochs=40 continues a finished run.

    Parameters
    ----------
    recipe
        The YAML file, or the folder of a run to resume or to continue.
    overrides
        Changes, such as method.kind=lora train.epochs=5.
    start_from
        Start from the trained tensors of this run or adapter, also of geotune pretrain or
        hub:ORG/NAME[@REVISION]: train.start_from.
    overwrite
        Start again and remove an earlier run from the folder.
    estimate_memory
        Also estimate the memory of a step, as geotune plan does, and record it in the run.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.fitting import fit as fit_recipe
        if start_from is not None:
            overrides = (*overrides, f"train.start_from={json.dumps(str(start_from))}")
        result = fit_recipe(
            recipe,
            overrides,
            overwrite=overwrite,
            estimate_memory=estimate_memory,
            on_message=message,
            on_progress=on_progress,
        )
    if result.main_process:
        show_fit(result, as_json)


def finish(run: Path, *, as_json: Json = False) -> None:
    """Complete an interrupted run without further training: its best epoch so far is the result.

    The run can be used like any other, and geotune fit RUN train.epochs=N continues it.

    Parameters
    ----------
    run
        The run folder.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.fitting import finish as finish_run
        result = finish_run(run, on_message=message, on_progress=on_progress)
    show_fit(result, as_json)


def show_fit(result: FitResult, as_json: bool) -> None:
    """Print the outcome of a training, and what to do next."""
    if as_json:
        print_json(
            {
                "run": str(result.run),
                "status": result.status,
                "metrics": result.metrics,
                "adapter": str(result.run / "adapter.safetensors"),
                "report": str(result.run / "report.html"),
                "summary": result.summary,
            }
        )
        return
    folder = escape(str(result.run))
    if result.status == "complete":
        out().print(
            f"{folder}: training is complete; geotune fit {folder} train.epochs=N trains "
            "more epochs, --overwrite starts again"
        )
    else:
        print_table(metrics_table("validation", result.metrics))
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
    out().print(f"adapter: {folder}/adapter.safetensors")
    out().print(f"report: {folder}/report.html")
    run = escape(shlex.quote(str(result.run)))
    continued = summary.get("continued_backbone")
    if continued is not None:
        if continued["fingerprint"]:
            path = result.run / "backbone.safetensors"
            out().print(f"backbone: {escape(str(path))}")
            start = f"backbone.weights={shlex.quote(str(path))}"
        else:
            out().print(f"no backbone.safetensors: {escape(continued['reason'])}")
            start = f"--from {shlex.quote(str(result.run))}"
        out().print(f"next:\n  geotune fit RECIPE {escape(start)}  [dim]# the later task[/dim]")
        return
    commands = []
    if summary["data"]["parts"].get("test"):
        commands.append(f"geotune test {run}  [dim]# the metrics of the test split[/dim]")
    written = _prediction(result.run)
    if written:
        commands.append(f"geotune predict {run} IMAGES --out maps  [dim]# {written}[/dim]")
    if commands:
        out().print("\n  ".join(["next:", *commands]))


def _prediction(run: Path) -> str:
    """What `geotune predict` writes for a run, if anything."""
    from geotune.adapter_config import load_adapter_config

    task = load_adapter_config(run).sections["task"]
    return "a table" if task.get("level") == "image" else PREDICTIONS.get(task["kind"], "")
