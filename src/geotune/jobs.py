"""What the commands do: fit a recipe, test a run, map scenes. No printing; plain values out."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import torch

import geotune
from geotune.adapter import CARD, TENSORS, adapter_state, save_adapter
from geotune.build import Built, build_data, build_training, card_sections, load_adapter
from geotune.data.prepare import DataParts
from geotune.data.scenes import open_rasters
from geotune.inference.predict import PredictedScene, predict_scene
from geotune.recipe import Recipe, read_recipe
from geotune.report.page import write_report
from geotune.run_report import Examples, choose_examples, make_report
from geotune.training.evaluate import Evaluation, evaluate
from geotune.training.fit import Fitted, fit, monitored
from geotune.training.folder import RunFolder
from geotune.types import GeotuneError

VERSIONS = ("torch", "torchvision", "timm", "peft", "lightning", "segmentation-models-pytorch")


@dataclass(frozen=True)
class FitResult:
    """What `fit_recipe` came to.

    Attributes:
        did: `trained`, `went on` (from an interrupted training) or `nothing` (it was finished).
        run: the run folder.
        metrics: of the validation part, with the best epoch's weights.
        notes: what the user should know.
        main_process: false in the helper processes of a training on many devices.
    """

    did: str
    run: Path
    metrics: dict[str, float]
    notes: list[str]
    summary: dict[str, Any]
    main_process: bool = True


def run_path(recipe: Recipe, recipe_file: Path) -> Path:
    """The run folder: `train.run`, or `runs/` with the recipe's name."""
    return recipe.train.run or Path("runs") / recipe_file.stem


def _silent(text: str) -> None:
    """Say nothing."""


def fit_recipe(
    recipe: Recipe,
    run: Path,
    *,
    fresh: bool = False,
    say: Callable[[str], None] = _silent,
    callbacks: Sequence[Any] = (),
) -> FitResult:
    """Train a recipe in `run`, or go on where an interrupted training stopped.

    Everything that can be checked is checked before the folder is touched. `say` gets a line at
    a time for the user. Raises `GeotuneError` for what is wrong.
    """
    folder = RunFolder(run)
    helper = _is_helper()
    if helper:
        say = _silent
    state = folder.state(recipe) if not fresh else "new"
    if fresh:
        folder.refuse_foreign()
    elif state == "finished":
        done = folder.read_json("run")
        metrics = folder.read_json("metrics")["val"]
        return FitResult("nothing", run, metrics, done["notes"], done, main_process=not helper)

    say("reading and checking the data")
    data = build_data(recipe)
    say("building the model")
    built = build_training(recipe, data.statistics)
    monitored(built, recipe.train)
    notes = [*data.notes, *built.notes]
    for note in notes:
        say(f"note: {note}")

    def begin() -> None:
        if not helper:
            if fresh:
                folder.clear()
            folder.start(recipe)

    if state == "unfinished" and folder.last.is_file():
        say(f"going on from {folder.last}")
    fitted = fit(built, data, recipe.train, folder, callbacks, begin)
    if not fitted.main_process:
        return FitResult("trained", run, {}, notes, {}, main_process=False)
    say("measuring the best epoch on the validation windows")
    validation = _evaluate(built, data, recipe, "val", fitted.device)
    summary = _finish(recipe, folder, built, data, fitted, validation, notes)
    did = "went on" if fitted.went_on else "trained"
    return FitResult(did, run, validation.metrics, notes, summary)


def _is_helper() -> bool:
    """Whether another process of the same training is the main one."""
    ranks = ("LOCAL_RANK", "RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return any(int(os.environ.get(name, "0")) > 0 for name in ranks)


def _evaluate(
    built: Built, data: DataParts, recipe: Recipe, part: str, device: torch.device
) -> Evaluation:
    windows = data.val if part == "val" else data.test
    assert windows is not None
    return evaluate(
        built.model,
        built.task,
        windows,
        batch_size=max(1, recipe.train.batch_size // recipe.train.accumulate),
        device=device,
        precision=recipe.train.precision,
    )


def _finish(
    recipe: Recipe,
    folder: RunFolder,
    built: Built,
    data: DataParts,
    fitted: Fitted,
    validation: Evaluation,
    notes: list[str],
) -> dict[str, Any]:
    """Write what the run leaves; `run.json`, which says that it is finished, comes last."""
    examples = choose_examples(
        built, data, validation, device=fitted.device, precision=recipe.train.precision
    )
    examples.save(folder.examples)
    adapter_bytes = save_adapter(
        folder.path,
        adapter_state(built.model),
        backbone=built.backbone,
        normalization=built.normalization,
        sections=card_sections(recipe),
        version=geotune.__version__,
    )
    parameters = list(built.model.parameters())
    epochs = [row["seconds"] for row in fitted.history]
    summary: dict[str, Any] = {
        "geotune": geotune.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "device": device_name(fitted.device),
        "best_epoch": fitted.best_epoch + 1,
        "epochs": len(fitted.history),
        "seconds": sum(epochs),
        "seconds_per_epoch": sum(epochs) / len(epochs),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "total_parameters": sum(p.numel() for p in parameters),
        "adapter_bytes": adapter_bytes,
        "peak_memory": vars(fitted.peak),
        "backbone": {
            "name": built.backbone.name,
            "licence": built.backbone.licence,
            "source": built.backbone.source,
            "fingerprint": built.backbone.fingerprint,
            "random_weights": built.backbone.random_weights,
        },
        "data": {
            "parts": data.parts,
            "class_pixels": data.class_pixels,
            "bands": list(data.statistics.bands),
            "mean": list(data.statistics.mean),
            "std": list(data.statistics.std),
        },
        "notes": notes,
    }
    metrics = {
        "val": validation.metrics,
        "regions": {"val": validation.regions},
        "confusion": {"val": validation.confusion},
    }
    folder.write_json("metrics", metrics)
    write_report(folder.report, make_report(folder, recipe, examples, summary, metrics))
    folder.write_json("run", summary)
    shutil.rmtree(folder.best.parent, ignore_errors=True)
    return summary


def test_run(run: Path, weights: Path | None = None) -> dict[str, Any]:
    """Metrics of a finished run on its test part, in all and by region; they join the report.

    Raises `GeotuneError` where the run is not finished or its recipe has no test part.
    """
    folder = RunFolder(run)
    run_summary = folder.read_json("run")
    recipe, _ = read_recipe(folder.recipe)
    data = build_data(recipe)
    if data.test is None:
        raise GeotuneError(
            f"{folder.recipe}: data.split has no test part; name test scenes and fit again"
        )
    built = load_adapter(run, weights)
    # a run that was trained on a GPU can be tested where there is none
    device = pick_device("cpu" if recipe.train.accelerator == "cpu" else "auto")
    tested = _evaluate(built, data, recipe, "test", device)
    metrics = folder.read_json("metrics")
    metrics["test"] = tested.metrics
    metrics["regions"]["test"] = tested.regions
    metrics["confusion"]["test"] = tested.confusion
    folder.write_json("metrics", metrics)
    examples = Examples.load(folder.examples)
    write_report(folder.report, make_report(folder, recipe, examples, run_summary, metrics))
    return {"metrics": tested.metrics, "regions": tested.regions, "confusion": tested.confusion}


def predict_run(
    run: Path,
    scenes: Sequence[str],
    out: Path,
    *,
    window: int | None = None,
    overlap: float = 0.5,
    batch_size: int = 8,
    probabilities: bool = False,
    polygons: bool = True,
    weights: Path | None = None,
    bands: Sequence[str] | None = None,
    nodata: float | None = None,
    device: str = "auto",
    progress: Callable[[str, int, int], None] | None = None,
) -> list[PredictedScene]:
    """Map scenes with a finished run, or with a folder that holds only an adapter.

    `bands` and `nodata` say what the scenes' files do not; by default as the run's recipe does.
    Raises `GeotuneError` before anything is written where a scene does not fit.
    """
    built = load_adapter(run, weights)
    folder = RunFolder(run)
    if folder.recipe.is_file():
        data = read_recipe(folder.recipe)[0].data
        bands, nodata = bands or data.bands, data.nodata if nodata is None else nodata
        window = window or data.window
    sources = open_rasters(
        list(scenes), bands=bands, wanted_bands=built.normalization.bands, nodata=nodata
    )
    place = pick_device(device)
    results = []
    for name, source in sources.items():

        def told(done: int, total: int, name: str = name) -> None:
            if progress is not None:
                progress(name, done, total)

        results.append(
            predict_scene(
                built.model,
                source,
                out,
                bands=built.normalization.bands,
                classes=built.task.classes,
                name=name,
                window=window or 256,
                overlap=overlap,
                batch_size=batch_size,
                device=place,
                probabilities=probabilities,
                polygons=polygons,
                progress=told,
            )
        )
    return results


def pick_device(accelerator: str) -> torch.device:
    """The device that an accelerator's name stands for; `auto` takes the best there is.

    Raises `GeotuneError` for one that is not here.
    """
    here = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        accelerator = next(name for name, there in here.items() if there)
    if not here[accelerator]:
        found = ", ".join(name for name, there in here.items() if there)
        raise GeotuneError(f"{accelerator}: there is none here; found {found}")
    return torch.device("cuda" if accelerator == "gpu" else accelerator)


def device_name(device: torch.device) -> str:
    """A device as people call it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    return {"python": platform.python_version()} | {name: installed(name) for name in VERSIONS}


def adapter_files(run: Path) -> tuple[Path, Path]:
    """Where a run's adapter lies."""
    return run / TENSORS, run / CARD
