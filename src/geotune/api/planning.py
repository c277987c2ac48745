"""`geotune plan`: the peak memory of a recipe's training, without training and without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import nn

from geotune.api.budget_search import BudgetResult, Candidate, cache_note, fit_budget
from geotune.backbones.create import facts
from geotune.backbones.spec import band_names
from geotune.config import Recipe
from geotune.factory.build_model import build_task, resolve_recipe
from geotune.factory.fake_model import FakeModelBuilder
from geotune.feature_cache.cache_estimate import CacheEstimate, predict_kept
from geotune.memory.estimate import (
    CUDA_CONTEXT_BYTES,
    Prediction,
    UnpredictableError,
    allocator_bytes,
    estimate_peak,
    gpu_bytes,
)
from geotune.memory.tracker import TrackedPeak
from geotune.model import Model
from geotune.training.step import devices, micro_batch, module_scopes, on_gpu, training_step


@dataclass(frozen=True)
class Plan:
    """What a recipe takes, and what could be done about it.

    Attributes:
        on_gpu: whether it is a GPU's memory that counts, as `train.accelerator` says.
        micro_batch: windows that are computed at once, on each device.
        kept: with `train.cache`, what the cache will be.
        fitting: with a budget, what fits it.
        notes: what the user should know.
    """

    prediction: Prediction
    kept: CacheEstimate | None
    on_gpu: bool
    micro_batch: int
    fitting: BudgetResult | None
    notes: list[str]

    @property
    def peak(self) -> TrackedPeak:
        """Of the device that counts."""
        return self.prediction.gpu if self.on_gpu else self.prediction.cpu


def plan_recipe(
    recipe: Recipe, budget: int | None = None, say: Callable[[str], None] = lambda text: None
) -> Plan:
    """Predict a recipe's peak memory; with a budget in bytes, find what fits it.

    Raises `GeotuneError` where the recipe's parts do not fit together.
    """
    recipe, bands, notes = _completed(recipe)
    planner = Planner(recipe, bands)
    prediction, kept = planner.predict(recipe)
    if kept is not None:
        notes.append(cache_note(recipe, kept))
    if prediction.computed:
        notes.append(
            f"{recipe.backbone.name} looks at values, so that its step could not be predicted by "
            "shapes alone: it was computed on this CPU"
        )
    if recipe.train.strategy == "fsdp":
        notes.append(
            "train.strategy fsdp: predicted for a process that holds the whole model; parted among "
            f"{planner.world}, weights, gradients and optimizer state take less"
        )
    fitting = None
    if budget is not None:
        say("looking for what fits")
        fitting = planner.fit(recipe, budget)
    micro = micro_batch(recipe.train.batch_size, recipe.train.accumulate_steps, planner.world)
    return Plan(prediction, kept, planner.on_gpu, micro, fitting, notes)


def _completed(recipe: Recipe) -> tuple[Recipe, tuple[str, ...], list[str]]:
    """The recipe with its bands; files are opened only where they alone say what is needed."""
    section = recipe.backbone
    known = facts(section.name)
    asks = (
        known is not None
        and "wavelengths" in known.supported_options
        and section.wavelengths is None
    )
    if section.bands is not None and not asks and recipe.data.window is not None:
        return recipe, band_names(section.bands), []
    from geotune.factory.build_data import inspect_files, with_window  # imports what reads files

    found = inspect_files(recipe)
    recipe, notes = resolve_recipe(with_window(recipe, found.window), found)
    return recipe, found.bands, notes


class Planner:
    """Predicts a recipe and its variations, over one backbone.

    Args:
        recipe: complete, as `resolve_recipe` makes it.
        bands: of the images.
    """

    def __init__(self, recipe: Recipe, bands: tuple[str, ...]) -> None:
        self.on_gpu = on_gpu(recipe.train)
        self.world = devices(recipe.train) * recipe.train.nodes
        self._drafts = FakeModelBuilder(recipe, bands)
        self._task = build_task(recipe)
        self._computes = False
        self.batch_norm = False

    def predict(self, recipe: Recipe) -> tuple[Prediction, CacheEstimate | None]:
        """The peak of a recipe over this backbone, and what its cache will be where it has one.

        Raises `GeotuneError` where the recipe's parts do not fit together.
        """
        if not self._computes:
            model = self._drafts.fake(recipe)
            try:
                return self._predict(recipe, model)
            except UnpredictableError:
                self._computes = True
        return self._predict(recipe, self._drafts.real(recipe))

    def _predict(self, recipe: Recipe, model: Model) -> tuple[Prediction, CacheEstimate | None]:
        train, window = recipe.train, recipe.data.window
        assert window is not None  # the recipe is complete
        example: dict[str, Any] = model.encoder.backbone.example(window, window)
        kept = None
        if train.cache != "none":
            micro = micro_batch(train.batch_size, train.accumulate_steps, self.world)
            kept = predict_kept(model, recipe, example, micro)
            example["features"] = kept.features
        targets = self._task.example_targets(window)
        step = training_step(self._task, train, example, targets, world=self.world)
        self.batch_norm |= any(
            isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
            for module in model.modules()
        )
        with model.encoder.without_backbone() if kept else nullcontext():
            found = estimate_peak(model, step, module_scopes(model), compute=self._computes)
        return found, kept

    def fit(self, recipe: Recipe, budget: int, *, alternatives: bool = True) -> BudgetResult:
        """What of a recipe has to change to keep to a budget in bytes."""
        fitting = fit_budget(
            recipe,
            budget,
            self.predict,
            self.bytes_needed,
            world=self.world,
            alternatives=alternatives,
        )
        return fitting

    def bytes_needed(self, prediction: Prediction, kept: CacheEstimate | None) -> int:
        """What has to be free on the device that counts: to fill a cache, too."""
        filling = 0 if kept is None else kept.filling_bytes
        if self.on_gpu:
            return gpu_bytes(max(prediction.gpu.total, filling))
        return max(prediction.cpu.total, filling)


def plan_values(plan: Plan) -> dict[str, Any]:
    """A plan as plain values, for JSON."""
    prediction, peak = plan.prediction, plan.peak
    values: dict[str, Any] = {
        "peak_bytes": peak.total,
        "parts": peak.parts,
        "by_place": {place: dict(parts) for place, parts in peak.by_place.items()},
        "device": "gpu" if plan.on_gpu else "cpu",
        "micro_batch": plan.micro_batch,
        "cpu": {"peak_bytes": prediction.cpu.total},
        "gpu": {
            "peak_bytes": prediction.gpu.total,
            "allocator_bytes": allocator_bytes(prediction.gpu.total),
            "cuda_context_bytes": CUDA_CONTEXT_BYTES,
            "total_bytes": prediction.gpu_bytes,
        },
        "flops": prediction.flops,
        "computed": prediction.computed,
        "cache": _cache(plan.kept),
        "notes": plan.notes,
    }
    if plan.fitting is not None:
        values["budget_bytes"] = plan.fitting.budget
        values["proposals"] = [_candidate(found, plan) for found in plan.fitting.proposals]
        values["smallest"] = _candidate(plan.fitting.smallest, plan)
        part, place, size = plan.fitting.held_up_by
        values["held_up_by"] = {"part": part, "place": place, "bytes": size}
    return values


def _cache(kept: CacheEstimate | None) -> dict[str, int | None] | None:
    if kept is None:
        return None
    return {
        "window_bytes": kept.window_bytes,
        "train_bytes": kept.train_bytes,
        "filling_bytes": kept.filling_bytes,
    }


def _candidate(candidate: Candidate, plan: Plan) -> dict[str, Any]:
    prediction = candidate.prediction
    return {
        "changes": candidate.changes,
        "peak_bytes": (prediction.gpu if plan.on_gpu else prediction.cpu).total,
        "needed_bytes": candidate.bytes,
        "relative_time": prediction.flops / plan.prediction.flops,
        "cache": _cache(candidate.kept),
        "notes": candidate.notes,
    }
