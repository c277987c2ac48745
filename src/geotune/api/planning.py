"""`geotune plan`: estimate the peak memory of a training, without training and without a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from geotune.api.budget_search import (
    BudgetResult,
    Candidate,
    as_overrides,
    cache_note,
    search_budget,
    with_changes,
)
from geotune.api.environment import fast_frozen_precisions, resolve_precision
from geotune.api.recipes import OnMessage, RecipeLike, as_recipe, ignore_message
from geotune.backbones.create import model_info
from geotune.backbones.spec import band_names
from geotune.config import Recipe, parse_size
from geotune.config.decoder_options import ProbeOptions
from geotune.config.task_options import DetectOptions, ReconstructOptions
from geotune.data.annotations.object_labels import ObjectLabels
from geotune.data.datamodule import DataModule
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError, RecipeError
from geotune.factory.build_model import build_task, resolve_recipe
from geotune.factory.fake_model import FakeModelBuilder
from geotune.feature_cache.cache_estimate import CacheEstimate, estimate_cache
from geotune.memory.estimate import (
    CUDA_CONTEXT_BYTES,
    DataDependentModelError,
    PeakEstimate,
    allocator_bytes,
    estimate_peak,
    total_gpu_bytes,
)
from geotune.memory.tracker import TrackedPeak
from geotune.model import Model
from geotune.report.number_format import size
from geotune.tasks.detect import EXAMPLE_OBJECTS
from geotune.training.step import (
    micro_batch_size,
    module_scopes,
    num_devices,
    training_step_spec,
    uses_gpu,
)
from geotune.training.time_estimate import TimeEstimate
from geotune.utils.progress import ALL_MODULES, OnProgress, ignore_progress, loading_libraries
from geotune.utils.text import pluralize


@dataclass(frozen=True)
class Plan:
    """Estimated memory of a recipe, and settings that fit a budget.

    Attributes:
        prediction: peak memory of a training step, by component.
        cache: estimate of the feature cache; None without `train.cache`.
        on_gpu: whether the memory of a GPU counts, according to `train.accelerator`.
        micro_batch: windows computed at once on each device.
        budget: result of the budget search; None without a budget.
        precision: the resolved `train.precision`.
        notes: messages for the user.
        time: estimated time of the training; None if it was not requested.
    """

    prediction: PeakEstimate
    cache: CacheEstimate | None
    on_gpu: bool
    micro_batch: int
    budget: BudgetResult | None
    precision: str
    notes: list[str]
    time: TimeEstimate | None = None

    @property
    def peak(self) -> TrackedPeak:
        """The peak on the device that counts."""
        return self.prediction.gpu if self.on_gpu else self.prediction.cpu


def plan(
    recipe: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    budget: int | str | None = None,
    alternatives: bool = True,
    time: bool = False,
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
) -> Plan:
    """Estimate the peak memory of a recipe; with a budget, search for settings that fit.

    Args:
        recipe: a YAML file, a dict of sections, or a parsed recipe. Its data files are opened only
            if the recipe does not name the bands, or detects objects: the labels tell how many.
        overrides: changes such as `train.batch_size=4`.
        budget: in bytes or as text such as `8GB`; by default `train.memory_budget`.
        alternatives: search for more than one proposal within the budget.
        time: also read the data, and measure the first steps of the training.
        on_message: receives progress messages and notes.
        on_progress: receives the progress of each phase.

    Raises `GeotuneError` for an invalid recipe or an invalid combination of components.
    """
    given = recipe = as_recipe(recipe, overrides, on_message)
    if isinstance(recipe.decoder, ProbeOptions):
        raise GeotuneError(
            f"decoder.kind {recipe.decoder.kind} is fitted to features and has no training step to "
            "plan; it needs the memory of a prediction",
            code="option-not-applicable",
            key="decoder.kind",
        )
    limit = recipe.train.memory_budget if budget is None else _bytes(budget)
    recipe, bands, notes = _resolved(recipe)
    recipe, precision_notes = resolve_precision(recipe)
    notes += precision_notes
    if recipe.train.activation_checkpointing == "auto":
        notes.append(
            "train.activation_checkpointing: none (auto; decoder or all, with the same results, if "
            "train.memory_budget requires it or memory runs out)"
        )
    recipe = start_without_checkpointing(recipe)
    objects, object_notes = _objects_in_files(recipe)
    notes += object_notes
    on_progress("estimating memory", 0, 1)
    planner = Planner(recipe, bands, objects)
    prediction, cache = planner.predict(recipe)
    on_progress("estimating memory", 1, 1)
    if cache is not None:
        notes.append(cache_note(recipe, cache))
    if prediction.computed:
        notes.append(
            f"{recipe.backbone.name} branches on tensor values, so its step cannot be estimated "
            "from shapes alone; it was computed on this CPU"
        )
    if recipe.train.strategy == "fsdp":
        notes.append(
            "train.strategy fsdp: estimated for a process that holds the whole model; sharded over "
            f"{planner.world} processes, weights, gradients and optimizer state need less"
        )
    if recipe.distill is not None:
        notes.append(
            "distill: estimated for the student's own step; the teacher runs before the training, "
            "and what is read of it (outputs and maps of a micro-batch) is not included"
        )
    result = None
    if limit is not None:
        on_message("searching for settings that fit")
        result = planner.search(recipe, limit, alternatives=alternatives)
    micro = micro_batch_size(recipe.train.batch_size, recipe.train.accumulate_steps, planner.world)
    estimate = None
    if time:
        with loading_libraries(on_progress, ALL_MODULES):
            from geotune.api.timing import estimate_time  # imports Lightning
        estimate = estimate_time(start_without_checkpointing(given), on_message, on_progress)
    return Plan(
        prediction,
        cache,
        planner.on_gpu,
        micro,
        result,
        recipe.train.precision,
        notes,
        estimate,
    )


def start_without_checkpointing(recipe: Recipe) -> Recipe:
    """The recipe with `train.activation_checkpointing: none` in place of `auto`."""
    if recipe.train.activation_checkpointing != "auto":
        return recipe
    return recipe.with_train(activation_checkpointing="none")


def _bytes(budget: int | str) -> int:
    if isinstance(budget, int):
        return budget
    try:
        return parse_size(budget)
    except ValueError as error:
        raise RecipeError(
            f"--budget: {error}", code="recipe-invalid", key="train.memory_budget"
        ) from error


def _resolved(recipe: Recipe) -> tuple[Recipe, tuple[str, ...], list[str]]:
    """The resolved recipe and its bands; files are opened only if the recipe leaves them open."""
    section = recipe.backbone
    known = model_info(section.name)
    needs_wavelengths = (
        known is not None
        and "wavelengths" in known.supported_options
        and section.wavelengths is None
    )
    if section.bands is not None and not needs_wavelengths and recipe.data.window is not None:
        return recipe, band_names(section.bands), []
    from geotune.factory.build_data import (  # imports the raster libraries
        inspect_files,
        with_window,
    )

    info = inspect_files(recipe)
    recipe, notes = resolve_recipe(with_window(recipe, info.window), info)
    return recipe, info.bands, notes


def _objects_in_files(recipe: Recipe) -> tuple[int | None, list[str]]:
    """Objects in the fullest window of a detection recipe's labels, and notes; None if unknown."""
    if not isinstance(recipe.task, DetectOptions):
        return None, []
    from geotune.factory.open_data import open_data  # imports the raster libraries

    try:
        objects = most_objects(open_data(recipe), recipe)
    except GeotuneError as error:
        return None, [f"{EXAMPLE_OBJECTS} objects in a window assumed: {error}"]
    return objects, [f"estimated with {pluralize(objects, 'object')}, as in the fullest window"]


def most_objects(scenes: Iterable[Scene], recipe: Recipe) -> int:
    """The number of objects in the fullest window of a recipe's scenes; at least 1."""
    assert recipe.data.window is not None
    side = math.ceil(recipe.data.window / min(1.0, recipe.data.augment.scale[0]))
    labels = (scene.labels for scene in scenes)
    return max([1, *(one.most_in_window(side) for one in labels if isinstance(one, ObjectLabels))])


class Planner:
    """Estimates a recipe and its variations on one backbone.

    Args:
        recipe: as returned by `resolve_recipe`.
        bands: of the images.
        objects: in a window of a detection task; None for those of `Task.example_targets`.
    """

    def __init__(self, recipe: Recipe, bands: tuple[str, ...], objects: int | None = None) -> None:
        self._objects = objects
        self.on_gpu = uses_gpu(recipe.train)
        self.world = num_devices(recipe.train) * recipe.train.nodes
        self._builder = FakeModelBuilder(recipe, bands)
        self._task = build_task(recipe)
        self._computes = False

    def predict(self, recipe: Recipe) -> tuple[PeakEstimate, CacheEstimate | None]:
        """Peak memory and feature cache of a recipe on this backbone.

        Raises `GeotuneError` for an invalid combination of components.
        """
        if not self._computes:
            model = self._builder.fake(recipe)
            try:
                return self._predict(recipe, model)
            except DataDependentModelError:
                self._computes = True
        return self._predict(recipe, self._builder.real(recipe))

    def _predict(self, recipe: Recipe, model: Model) -> tuple[PeakEstimate, CacheEstimate | None]:
        train, window = recipe.train, recipe.data.window
        assert window is not None  # the recipe is resolved
        example: dict[str, Any] = dict(model.example(window))
        cache = None
        if train.cache != "none":
            micro = micro_batch_size(train.batch_size, train.accumulate_steps, self.world)
            cache = estimate_cache(model, recipe, example, micro)
            example["features"] = cache.features
        targets = self._task.example_targets(window)
        if isinstance(recipe.task, ReconstructOptions):
            channels = len(model.encoder.backbone.bands) * model.encoder.backbone.timesteps
            targets = targets.expand(1, channels, -1, -1)
        if self._objects is not None:
            targets = [
                {name: x.new_zeros(self._objects, *x.shape[1:]) for name, x in target.items()}
                for target in targets
            ]
        step = training_step_spec(self._task, train, example, targets, world=self.world)
        with model.encoder.without_backbone() if cache else nullcontext():
            prediction = estimate_peak(model, step, module_scopes(model), compute=self._computes)
        return prediction, cache

    def search(self, recipe: Recipe, budget: int, *, alternatives: bool = True) -> BudgetResult:
        """Search for changes of a recipe that fit a budget in bytes."""
        return search_budget(
            recipe,
            budget,
            self.predict,
            self.bytes_needed,
            world=self.world,
            alternatives=alternatives,
            frozen_precisions=fast_frozen_precisions(recipe.train),
        )

    def bytes_needed(self, prediction: PeakEstimate, cache: CacheEstimate | None) -> int:
        """Memory that must be free on the device, also while the cache is populated."""
        populate = 0 if cache is None else cache.populate_bytes
        if self.on_gpu:
            return total_gpu_bytes(max(prediction.gpu.total, populate))
        return max(prediction.cpu.total, populate)


def fit_to_budget(
    recipe: Recipe, data: DataModule, on_message: OnMessage
) -> tuple[Recipe, int, list[str]]:
    """Change a recipe to fit its `train.memory_budget`.

    Returns the recipe, the estimated bytes of the tensors of its step, and notes on the changes.
    Raises `GeotuneError` if no setting fits.
    """
    budget = recipe.train.memory_budget
    assert budget is not None
    on_message(f"searching for settings that need at most {size(budget)}")
    completed, _ = resolve_recipe(recipe, data)
    detects = isinstance(completed.task, DetectOptions)
    objects = most_objects(data.train.scenes, completed) if detects else None
    planner = Planner(completed, data.statistics.bands, objects)
    fitting = planner.search(completed, budget, alternatives=False)
    if not fitting.proposals:
        part, place, held = fitting.largest_component
        changes = " ".join(as_overrides(fitting.smallest.changes))
        raise GeotuneError(
            f"train.memory_budget {size(budget)}: no setting fits; the smallest needs "
            f"{size(fitting.smallest.bytes)} ({changes or 'unchanged'}), of which {size(held)} are "
            f"{part.replace('_', ' ')} ({place}); raise the budget, or choose a smaller "
            "data.window, backbone or decoder",
            code="memory-budget",
            key="train.memory_budget",
        )
    chosen = fitting.proposals[0]
    estimate = chosen.prediction.gpu if planner.on_gpu else chosen.prediction.cpu
    if not chosen.changes:
        return recipe, estimate.total, []
    changed = ", ".join(as_overrides(chosen.changes))
    notes = [f"train.memory_budget {size(budget)}: {changed}; predicted {size(chosen.bytes)}"]
    return with_changes(recipe, chosen.changes), estimate.total, [*notes, *chosen.notes]


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """A plan as plain values, for JSON."""
    prediction, peak = plan.prediction, plan.peak
    values: dict[str, Any] = {
        "peak_bytes": peak.total,
        "parts": peak.by_category,
        "by_place": {place: dict(parts) for place, parts in peak.by_scope.items()},
        "device": "gpu" if plan.on_gpu else "cpu",
        "micro_batch": plan.micro_batch,
        "precision": plan.precision,
        "cpu": {"peak_bytes": prediction.cpu.total},
        "gpu": {
            "peak_bytes": prediction.gpu.total,
            "allocator_bytes": allocator_bytes(prediction.gpu.total),
            "cuda_context_bytes": CUDA_CONTEXT_BYTES,
            "total_bytes": prediction.total_gpu_bytes,
        },
        "flops": prediction.flops,
        "computed": prediction.computed,
        "cache": _cache(plan.cache),
        "notes": plan.notes,
    }
    if plan.time is not None:
        values["time"] = {**asdict(plan.time), "seconds": plan.time.seconds}
    if plan.budget is not None:
        values["budget_bytes"] = plan.budget.budget
        values["proposals"] = [_candidate(proposal, plan) for proposal in plan.budget.proposals]
        values["smallest"] = _candidate(plan.budget.smallest, plan)
        part, place, num_bytes = plan.budget.largest_component
        values["largest_component"] = {"part": part, "place": place, "bytes": num_bytes}
    return values


def _cache(cache: CacheEstimate | None) -> dict[str, int | None] | None:
    if cache is None:
        return None
    return {
        "window_bytes": cache.window_bytes,
        "train_bytes": cache.train_bytes,
        "populate_bytes": cache.populate_bytes,
    }


def _candidate(candidate: Candidate, plan: Plan) -> dict[str, Any]:
    prediction = candidate.prediction
    return {
        "changes": candidate.changes,
        "peak_bytes": (prediction.gpu if plan.on_gpu else prediction.cpu).total,
        "needed_bytes": candidate.bytes,
        "relative_time": prediction.flops / plan.prediction.flops,
        "cache": _cache(candidate.cache),
        "notes": candidate.notes,
    }
