"""Training on checked data, and what a finished run leaves in its folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lightning.pytorch import Callback
from safetensors.torch import load_file

import geotune
from geotune.adapter_io import adapter_state, load_adapter_state, save_adapter
from geotune.api.environment import device_name, versions
from geotune.config import Recipe
from geotune.data.datamodule import DataModule
from geotune.factory.build_model import BuiltModel, build_training, card_sections, resolve_recipe
from geotune.feature_cache.build_cache import cache_notes
from geotune.report.from_run import choose_examples, make_report, page_name
from geotune.report.page import write_report
from geotune.report.tasks.registry import PAGES
from geotune.training.evaluate import Evaluation, evaluate
from geotune.training.run_dir import RunDir
from geotune.training.trainer import TrainerResult, fit, resolve_monitor


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        metrics: of the validation part, with the best epoch's weights.
        summary: what `run.json` holds.
        went_on: whether it started from a checkpoint.
    """

    metrics: dict[str, float]
    summary: dict[str, Any]
    went_on: bool


def train(
    recipe: Recipe,
    data: DataModule,
    folder: RunDir,
    *,
    begin: Callable[[Recipe], None],
    say: Callable[[str], None],
    callbacks: Sequence[Callback],
    caching: Callable[[int, int], None] = lambda done, total: None,
    notes: Sequence[str] = (),
) -> Trained | None:
    """Build the model, train it and write the run; None in the helpers of the main process.

    `begin` is given the recipe once everything fits together, before anything is written, and again
    where it was changed because memory ran out; `caching` is told the windows done and to be done
    for a cache of features; `notes` were said before.
    """
    asked = recipe
    recipe, told = resolve_recipe(recipe, data)
    built = build_training(recipe, data.statistics)
    resolve_monitor(built, recipe.train)
    found = [*data.notes, *told, *built.notes]
    if recipe.train.cache != "none":
        found += cache_notes(data)
    for note in found:
        say(f"note: {note}")

    def fewer(micro: int, why: str) -> None:
        accumulate = asked.train.batch_size // micro
        begin(in_parts(asked, accumulate))
        found.append(
            f"{why}; {micro} at once from this step on (train.accumulate_steps={accumulate}), the batch "
            f"of {asked.train.batch_size} stays"
        )
        say(f"note: {found[-1]}")

    fitted = fit(
        built,
        data,
        recipe.train,
        folder,
        callbacks,
        begin=lambda: begin(asked),
        fewer=fewer,
        say=say,
        caching=caching,
    )
    if not fitted.main_process:
        return None
    recipe = in_parts(recipe, fitted.accumulate_steps)
    if fitted.sharded:
        built = build_training(recipe, data.statistics)
    load_adapter_state(built.model, load_file(folder.best), str(folder.best))
    say("measuring the best epoch on the validation windows")
    validation = evaluate(
        built.model,
        built.task,
        data.val,
        batch_size=recipe.train.batch_size // fitted.accumulate_steps,
        device=fitted.device,
        precision=recipe.train.precision,
    )
    summary = _finish(recipe, folder, built, data, fitted, validation, [*notes, *found])
    return Trained(validation.metrics, summary, fitted.went_on)


def in_parts(recipe: Recipe, accumulate_steps: int) -> Recipe:
    """The recipe with the same batch computed in so many parts."""
    train = recipe.train.model_copy(update={"accumulate_steps": accumulate_steps})
    return recipe.model_copy(update={"train": train})


def _finish(
    recipe: Recipe,
    folder: RunDir,
    built: BuiltModel,
    data: DataModule,
    fitted: TrainerResult,
    validation: Evaluation,
    notes: list[str],
) -> dict[str, Any]:
    """Write what the run leaves; `run.json`, which says that it is finished, comes last."""
    page = PAGES[page_name(recipe)]
    examples = choose_examples(
        built, data, validation, page, device=fitted.device, precision=recipe.train.precision
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
        "cache": fitted.cache.summary if fitted.cache else None,
        "backbone": {
            "name": built.backbone.name,
            "licence": built.backbone.licence,
            "source": built.backbone.source,
            "fingerprint": built.backbone.fingerprint,
            "random_weights": built.backbone.random_weights,
        },
        "data": {
            "parts": data.parts,
            "distances_m": data.distances_m,
            "skipped": list(data.skipped),
            "class_counts": data.class_counts,
            "unit": data.unit,
            "classes": list(built.task.classes),
            "bands": list(data.statistics.bands),
            "mean": list(data.statistics.mean),
            "std": list(data.statistics.std),
        },
        "notes": notes,
    }
    metrics = {
        "val": validation.metrics,
        "regions": {"val": validation.regions},
        **{name: {"val": value} for name, value in validation.details.items()},
    }
    folder.write_json("metrics", metrics)
    write_report(folder.report, make_report(folder, recipe, examples, summary, metrics))
    folder.write_json("run", summary)
    shutil.rmtree(folder.best.parent, ignore_errors=True)
    return summary
