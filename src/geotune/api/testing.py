"""`geotune test`: metrics of a run on its test split, and of any adapter on validation data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geotune.api.recipes import OnMessage, RecipeLike, as_recipe, ignore_message
from geotune.config import TrainOptions, load_recipe
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data
from geotune.hub.download import adapter_source
from geotune.training.run_dir import RunDir
from geotune.training.trackers import Trackers
from geotune.utils.headline import headline
from geotune.utils.precision import evaluation_precision
from geotune.utils.progress import ALL_MODULES, OnProgress, ignore_progress, loading_libraries
from geotune.utils.text import describe_changes, join_some

if TYPE_CHECKING:
    import torch

    from geotune.data.datamodule import DataModule
    from geotune.data.window_datasets import GridWindowDataset
    from geotune.model import Model
    from geotune.tasks.base import Task
    from geotune.training.evaluate import Evaluation


def test(
    run: Path | str,
    *,
    weights: Path | str | None = None,
    backbone: str | None = None,
    method: str | None = None,
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, Any]:
    """Compute the metrics of a finished run on its test split and add them to its report.

    Args:
        run: the run folder.
        weights: of the backbone, if they moved since the training.
        backbone: as in `load_adapter`.
        method: as in `load_adapter`.
        on_message: receives notes.
        on_progress: receives the progress of each phase.

    Returns metrics of the whole split (`metrics`), of each region (`regions`), the difference
    between regions seen and not seen in training (`gap`, see `RegionGap`; None if all were seen),
    and the details of the task. Raises `GeotuneError` if the run is not finished or has no test
    split.
    """
    folder = RunDir(Path(run))
    run_summary = folder.read_json("run")
    recipe, _ = load_recipe(folder.recipe)
    data = build_data(recipe, on_progress)
    if data.test is None:
        raise GeotuneError(
            f"{folder.recipe}: data.split has no test split; name test scenes and fit again",
            code="split-empty",
            key="data.split.test",
            file=folder.recipe,
        )
    if changed := _check_test_split(folder, data, run_summary):
        on_message(f"note: {changed}")
    with loading_libraries(on_progress, ALL_MODULES):
        from geotune.api.environment import pick_device
        from geotune.api.worst_windows import write_worst_windows
        from geotune.factory.build_model import load_adapter, with_val_threshold
        from geotune.report.from_run import Examples, make_report
        from geotune.report.page import write_report
        from geotune.training.generalization_gap import region_gap
        from geotune.training.lock import exclusive_lock

    trackers = Trackers(recipe.train.loggers, folder, on_message, required=False)
    with exclusive_lock(folder.path), trackers:
        built = load_adapter(run, weights, backbone=backbone, method=method)
        task = with_val_threshold(built.task, folder.details("val"))
        # a run trained on a GPU can be tested on a machine without one
        device = pick_device("cpu" if recipe.train.accelerator == "cpu" else "auto")
        evaluate_windows = _evaluator(
            built.model, task, recipe.train, device, on_message, on_progress
        )
        tested = evaluate_windows(data.test)
        gap = region_gap(data, tested, evaluate_windows, task.metrics().compute_from)
        metrics = folder.read_json("metrics")
        metrics["test"] = tested.metrics
        metrics.setdefault("headline", {})["test"] = headline(tested.metrics)
        metrics["regions"]["test"] = tested.regions
        metrics["gap"] = None if gap is None else asdict(gap)
        for name, value in tested.details.items():
            metrics.setdefault(name, {})["test"] = value
        tested.windows.save(folder.test_windows)
        write_worst_windows(folder, "test", data.test, tested.windows)
        folder.write_json("metrics", metrics)
        examples = Examples.load(folder.examples)
        write_report(folder.report, make_report(folder, recipe, examples, run_summary, metrics))
        trackers.open()
        trackers.finish("test", tested.metrics, [folder.report, folder.path / "metrics.json"])
    result = {"metrics": tested.metrics, "regions": tested.regions, "gap": metrics["gap"]}
    return {**result, **tested.details}


def _check_test_split(folder: RunDir, data: DataModule, summary: Mapping[str, Any]) -> str:
    """A note if the test split is not that of the training; empty if it is.

    Raises `GeotuneError` if scenes that the run was trained on, or chosen by, came into it, as
    where a random split is drawn again over more scenes.
    """
    parts: Mapping[str, Sequence[str]] = summary["data"].get("parts", {})
    then, now = parts.get("test", []), data.splits.get("test", [])
    if not parts:
        return ""
    seen = {*parts.get("train", []), *parts.get("val", [])} - {*then}
    leaked = [name for name in now if name in seen]
    if leaked:
        raise GeotuneError(
            f"{folder.path}: the test split has scenes that the run was trained on or chosen by: "
            f"{join_some(leaked)}; the scenes of the recipe changed since, and the split was drawn "
            "again: restore them, name the test scenes (data.split: {kind: list}), or train again",
            code="split-changed",
            key="data.split",
            file=folder.recipe,
        )
    changes = describe_changes(then, now)
    return changes and f"the test split differs from that of the training: {changes}"


def validate(
    recipe: RecipeLike,
    adapter: Path | str,
    *,
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
) -> tuple[dict[str, float], int]:
    """Metrics of an adapter on the validation split of a recipe, such as an average at one site.

    Args:
        recipe: a YAML file, a dict of sections or a parsed recipe, with the adapter's model.
        adapter: a folder with `adapter.json` and `adapter.safetensors`; nothing of it is executed.
        on_message: receives notes.
        on_progress: receives the progress of each phase.

    Returns the metrics and the number of windows. Raises `GeotuneError` for an adapter of another
    backbone or model.
    """
    parsed = as_recipe(recipe, (), on_message)
    data = build_data(parsed, on_progress)
    with loading_libraries(on_progress, ALL_MODULES):
        from geotune.api.environment import pick_device, resolve_precision
        from geotune.api.starting import load_whole_adapter
        from geotune.factory.build_model import build_training, resolve_recipe

    parsed, _ = resolve_recipe(parsed, data)
    parsed, _ = resolve_precision(parsed)
    built = build_training(parsed, data.statistics, data.class_counts["train"])
    load_whole_adapter(built, parsed, adapter_source(adapter))
    device = pick_device(parsed.train.accelerator)
    evaluate_windows = _evaluator(
        built.model, built.task, parsed.train, device, on_message, on_progress
    )
    evaluated = evaluate_windows(data.val)
    return evaluated.metrics, len(data.val)


def _evaluator(
    model: Model,
    task: Task,
    train: TrainOptions,
    device: torch.device,
    on_message: OnMessage,
    on_progress: OnProgress,
) -> Callable[[GridWindowDataset], Evaluation]:
    """Evaluates windows as in the training, with the precision that the device supports."""
    from geotune.training.evaluate import evaluate

    precision, note = evaluation_precision(train.precision, device.type)
    if note is not None:
        on_message(f"note: {note}")
    return partial(
        evaluate,
        model,
        task,
        batch_size=train.batch_size // train.accumulate_steps,
        device=device,
        precision=precision,
        on_progress=partial(on_progress, "evaluation"),
    )


test.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
