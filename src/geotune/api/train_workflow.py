"""Train on checked data and write the finished run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from lightning.pytorch import Callback
from safetensors.torch import load_file

import geotune
from geotune.adapter_io import load_adapter_state
from geotune.api.continued_backbone import write_continued_backbone
from geotune.api.environment import device_name, pick_device, versions
from geotune.api.novelty import novelty_reference, write_novelty
from geotune.api.recipes import OnMessage
from geotune.api.starting import start_from_adapter
from geotune.api.worst_windows import write_worst_windows
from geotune.config import Recipe
from geotune.config.decoder_options import ProbeOptions
from geotune.config.task_options import ReconstructOptions
from geotune.data.datamodule import DataModule
from geotune.decoders.probe import Probe
from geotune.factory.build_model import BuiltModel, build_training, resolve_recipe
from geotune.factory.prediction_settings import prediction_settings
from geotune.factory.save_model import save_model
from geotune.feature_cache.build_cache import cache_notes
from geotune.hub.download import adapter_source
from geotune.inference.input_check import training_images
from geotune.report.from_run import choose_examples, make_report, page_name
from geotune.report.page import write_report
from geotune.report.tasks.base import find_page
from geotune.stac.extent import extent_of
from geotune.training.evaluate import Evaluation, evaluate
from geotune.training.fit_probe import fit_probe
from geotune.training.open_teacher import open_teacher
from geotune.training.optimizer import layer_decay_note
from geotune.training.run_dir import RunDir
from geotune.training.trackers import Trackers
from geotune.training.trainer import TrainerResult, fit, resolve_monitor
from geotune.utils.code_hash import source_commit
from geotune.utils.headline import headline
from geotune.utils.progress import OnProgress, ignore_progress


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training.

    Attributes:
        metrics: of the validation split, with the weights of the best epoch.
        summary: the content of `run.json`.
        resumed: whether it started from a checkpoint.
    """

    metrics: dict[str, float]
    summary: dict[str, Any]
    resumed: bool


def train(
    recipe: Recipe,
    data: DataModule,
    folder: RunDir,
    *,
    on_start: Callable[[Recipe], None],
    on_message: OnMessage,
    callbacks: Sequence[Callback],
    on_progress: OnProgress = ignore_progress,
    notes: Sequence[str] = (),
    estimate_memory: bool = False,
    planned_bytes: int | None = None,
    adapt_checkpointing: bool = False,
    stop: bool = False,
    overwrite: bool = False,
    trackers: Trackers | None = None,
) -> TrainResult | None:
    """Build the model, train it and write the run; returns None in helper processes.

    Args:
        recipe: parsed.
        data: checked.
        folder: of the run.
        on_start: receives the recipe when all components fit together, before anything is written,
            and again if it changed because memory ran out.
        on_message: receives progress messages and notes.
        callbacks: for Lightning.
        on_progress: receives the progress of each phase.
        notes: earlier messages, kept in the run.
        estimate_memory: estimate the memory of a step, unless it is planned.
        planned_bytes: the estimated memory of a step.
        adapt_checkpointing: recompute more activations if memory does not suffice.
        stop: train no further epoch.
        overwrite: `on_start` removes an earlier run from the folder.
        trackers: of experiments; the caller opens and closes them.
    """
    asked = recipe
    recipe, resolved_notes = resolve_recipe(recipe, data)
    on_progress("building the model", 0, 1)
    built = build_training(recipe, data.statistics, data.class_counts["train"])
    on_progress("building the model", 1, 1)
    resolve_monitor(built, recipe.train)
    teacher = None
    if recipe.distill is not None:
        teacher = open_teacher(recipe.distill, built, data)
    own_notes = [*data.notes, *resolved_notes, *built.notes]
    resumes = bool(folder.checkpoints) and not overwrite
    if recipe.train.start_from is not None and not resumes:
        start = adapter_source(recipe.train.start_from)
        note = start_from_adapter(built, recipe, start)
        own_notes += [] if note is None else [note]
        if start.reference is not None:
            own_notes.append(f"train.start_from: {start}")
    if note := layer_decay_note(built.model, recipe.train.layer_decay):
        own_notes.append(note)
    if recipe.train.cache != "none":
        own_notes += cache_notes(data)
    elif recipe.distill is not None:
        own_notes += cache_notes(data, "distill")
    watched = epoch_validation(data, recipe.train.validation_windows)
    if watched is not data:
        own_notes.append(
            f"train.validation_windows: epochs are compared on {len(watched.val)} of "
            f"{len(data.val)} validation windows; the results of the best one are of all"
        )
    for note in own_notes:
        on_message(f"note: {note}")

    changes: dict[str, Any] = {}

    def on_change(options: Mapping[str, Any], reason: str) -> None:
        changes.update(options)
        on_start(asked.with_train(**changes))
        batch = asked.train.batch_size
        effect = "activations are recomputed in the backward pass, with the same results"
        if "accumulate_steps" in options:
            micro = batch // options["accumulate_steps"]
            effect = f"{micro} windows at once, still {batch} per batch"
        [(key, value)] = options.items()
        own_notes.append(f"{reason}; from this step on {effect} (train.{key}={value})")
        on_message(f"note: {own_notes[-1]}")

    probe_options: ProbeOptions | None = None
    if isinstance(built.model.decoder, Probe):

        def note_message(text: str) -> None:
            own_notes.append(text)
            on_message(f"note: {text}")

        probe = fit_probe(
            built,
            watched,
            recipe.train,
            folder,
            device=pick_device(recipe.train.accelerator),
            on_start=lambda: on_start(asked),
            on_message=note_message,
            on_progress=on_progress,
        )
        fitted, probe_options = probe.result, probe.options
    else:
        fitted = fit(
            built,
            watched,
            recipe.train,
            folder,
            callbacks,
            on_start=lambda: on_start(asked),
            on_change=on_change,
            on_message=on_message,
            on_progress=on_progress,
            estimate_memory=estimate_memory,
            planned_bytes=planned_bytes,
            adapt_checkpointing=adapt_checkpointing,
            stop=stop,
            teacher=teacher,
            trackers=trackers.loggers if trackers else (),
        )
    if not fitted.main_process:
        return None
    recipe = recipe.with_train(**{**changes, "accumulate_steps": fitted.accumulate_steps})
    if probe_options is not None:
        recipe = recipe.model_copy(update={"decoder": probe_options})
    if fitted.sharded:
        built = build_training(recipe, data.statistics, data.class_counts["train"])
    load_adapter_state(built.model, load_file(folder.best_weights), str(folder.best_weights))
    validation = fitted.validation if watched is data else None
    if validation is None:
        on_message("evaluating the best epoch on the validation windows")
        validation = evaluate(
            built.model,
            built.task,
            data.val,
            batch_size=recipe.train.batch_size // fitted.accumulate_steps,
            device=fitted.device,
            precision=recipe.train.precision,
            on_progress=partial(on_progress, "evaluation"),
        )
    notes = [*notes, *own_notes, *fitted.notes]
    on_progress("writing the report", 0, 1)
    summary = _finish(recipe, folder, built, data, fitted, validation, notes, on_progress)
    on_progress("writing the report", 1, 1)
    if trackers is not None:
        metrics = folder.path / "metrics.json"
        trackers.finish("best", validation.metrics, [folder.report, folder.recipe, metrics])
    return TrainResult(validation.metrics, summary, fitted.resumed)


def epoch_validation(data: DataModule, max_windows: int | None) -> DataModule:
    """The data with at most so many validation windows, evenly spaced, to compare epochs on."""
    if max_windows is None or max_windows >= len(data.val):
        return data
    groups = {scene.group for scene in data.val.scenes}
    return replace(data, val=data.val.subset(groups, max_windows))


def _finish(
    recipe: Recipe,
    folder: RunDir,
    built: BuiltModel,
    data: DataModule,
    fitted: TrainerResult,
    validation: Evaluation,
    notes: list[str],
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Write the files of the run; `run.json` marks it as finished and comes last."""
    page = find_page(page_name(recipe))
    examples = choose_examples(
        built, data, validation, page, device=fitted.device, precision=recipe.train.precision
    )
    examples.save(folder.examples)
    novelty = None
    if not isinstance(recipe.task, ReconstructOptions):
        reference = novelty_reference(
            built.model,
            data,
            batch_size=recipe.train.batch_size // fitted.accumulate_steps,
            device=fitted.device,
            on_progress=on_progress,
        )
        novelty = write_novelty(folder.path, reference)
    images = training_images(data)
    prediction = prediction_settings(recipe, validation.details, images, novelty)
    adapter_bytes = save_model(folder.path, built, recipe, prediction)
    parameters = list(built.model.parameters())
    epochs = [row["seconds"] for row in fitted.history]
    summary: dict[str, Any] = {
        "geotune": geotune.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": "+".join(fitted.code),
        "commit": source_commit(),
        "versions": versions(),
        "device": device_name(fitted.device),
        "precision": recipe.train.precision,
        "activation_checkpointing": recipe.train.activation_checkpointing,
        "best_epoch": fitted.best_epoch + 1,
        "epochs": len(fitted.history),
        "seconds": sum(epochs),
        "seconds_per_epoch": sum(epochs) / len(epochs),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "total_parameters": sum(p.numel() for p in parameters),
        "adapter_bytes": adapter_bytes,
        "peak_memory": vars(fitted.peak),
        "cache": fitted.cache.summary if fitted.cache else None,
        "distill": _distill_summary(recipe, fitted),
        "backbone": {
            "name": built.backbone.name,
            "licence": built.backbone.licence,
            "source": built.backbone.source,
            "fingerprint": built.backbone.fingerprint,
            "random_weights": built.backbone.random_weights,
        },
        "data": {
            "parts": data.splits,
            "windows": {"train": len(data.train_grid), "val": len(data.val)},
            "distances_m": data.distances_m,
            "extent": extent_of([scene.raster for scene in data.train_grid.scenes]),
            "skipped": list(data.skipped),
            "class_counts": data.class_counts,
            "unit": data.label_unit,
            "classes": list(built.task.classes),
            "bands": list(data.statistics.bands),
            "mean": list(data.statistics.mean),
            "std": list(data.statistics.std),
        },
        "notes": notes,
    }
    metrics = {
        "val": validation.metrics,
        "headline": {"val": headline(validation.metrics)},
        "regions": {"val": validation.regions},
        **{name: {"val": value} for name, value in validation.details.items()},
    }
    folder.write_json("metrics", metrics)
    write_report(folder.report, make_report(folder, recipe, examples, summary, metrics))
    write_worst_windows(folder, "val", data.val, validation.windows)
    if isinstance(recipe.task, ReconstructOptions):  # last, because it changes the model
        continued = write_continued_backbone(
            folder.backbone, built, recipe.method.kind, data.statistics
        )
        summary["continued_backbone"] = vars(continued)
    folder.write_json("run", summary)
    folder.remove_checkpoints(keep_last=recipe.train.keep_checkpoint)
    return summary


def _distill_summary(recipe: Recipe, fitted: TrainerResult) -> dict[str, Any] | None:
    """The entry `distill` of `run.json`; None without a teacher."""
    if recipe.distill is None:
        return None
    cache = fitted.teacher_cache
    return {"run": str(recipe.distill.run), "cache": cache.summary if cache else None}
