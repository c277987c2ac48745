"""`geotune plan`: the peak memory of a recipe's training, without training and without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from geotune.backbones.catalog import facts
from geotune.backbones.request import band_names
from geotune.build.draft import Drafts
from geotune.build.model import build_task, complete
from geotune.jobs.budget import Candidate, Fitting, fit_budget
from geotune.memory.predict import Prediction, UnpredictableError, predict
from geotune.memory.track import TrackedPeak
from geotune.model import Model
from geotune.recipe import Recipe
from geotune.training.step import devices, micro_batch, on_gpu, places, training_step


@dataclass(frozen=True)
class Plan:
    """What a recipe takes, and what could be done about it.

    Attributes:
        on_gpu: whether it is a GPU's memory that counts, as `train.accelerator` says.
        micro_batch: windows that are computed at once, on each device.
        fitting: with a budget, what fits it.
        notes: what the user should know.
    """

    prediction: Prediction
    on_gpu: bool
    micro_batch: int
    fitting: Fitting | None
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
    prediction = planner.predict(recipe)
    if prediction.computed:
        notes.append(
            f"{recipe.backbone.name} looks at values, so that its step could not be predicted by "
            "shapes alone: it was computed on this CPU"
        )
    fitting = None
    if budget is not None:
        say("looking for what fits")
        fitting = planner.fit(recipe, budget)
    micro = micro_batch(recipe.train.batch_size, recipe.train.accumulate, planner.world)
    return Plan(prediction, planner.on_gpu, micro, fitting, notes)


def _completed(recipe: Recipe) -> tuple[Recipe, tuple[str, ...], list[str]]:
    """The recipe with its bands; files are opened only where they alone say what is needed."""
    section = recipe.backbone
    known = facts(section.name)
    asks = known is not None and "wavelengths" in known.takes and section.wavelengths is None
    if section.bands is not None and not asks and recipe.data.window is not None:
        return recipe, band_names(section.bands), []
    from geotune.build.data import file_facts, with_window  # imports what reads files

    found = file_facts(recipe)
    recipe, notes = complete(with_window(recipe, found.window), found)
    return recipe, found.bands, notes


class Planner:
    """Predicts a recipe and its variations, over one backbone.

    Args:
        recipe: complete, as `complete` makes it.
        bands: of the images.
    """

    def __init__(self, recipe: Recipe, bands: tuple[str, ...]) -> None:
        self.on_gpu = on_gpu(recipe.train)
        self.world = devices(recipe.train) * recipe.train.nodes
        self._drafts = Drafts(recipe, bands)
        self._task = build_task(recipe)
        self._computes = False
        self.batch_norm = False

    def predict(self, recipe: Recipe) -> Prediction:
        """The peak of a recipe over this backbone. Raises `GeotuneError` where nothing fits."""
        if not self._computes:
            model = self._drafts.fake(recipe)
            try:
                return self._predict(recipe, model)
            except UnpredictableError:
                self._computes = True
        return self._predict(recipe, self._drafts.real(recipe))

    def _predict(self, recipe: Recipe, model: Model) -> Prediction:
        train, window = recipe.train, recipe.data.window
        assert window is not None  # the recipe is complete
        example = model.encoder.backbone.example(window, window)
        targets = self._task.example(window)
        micro = micro_batch(train.batch_size, train.accumulate, self.world)
        step = training_step(self._task, train, example, targets, micro)
        self.batch_norm |= any(
            isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
            for module in model.modules()
        )
        return predict(model, step, places(model), compute=self._computes)

    def fit(self, recipe: Recipe, budget: int, *, alternatives: bool = True) -> Fitting:
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

    def bytes_needed(self, prediction: Prediction) -> int:
        """What has to be free on the device that counts."""
        return prediction.gpu_bytes if self.on_gpu else prediction.cpu.total


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
            "allocator_bytes": prediction.allocator_bytes,
            "cuda_context_bytes": prediction.context_bytes,
            "total_bytes": prediction.gpu_bytes,
        },
        "flops": prediction.flops,
        "computed": prediction.computed,
        "notes": plan.notes,
    }
    if plan.fitting is not None:
        values["budget_bytes"] = plan.fitting.budget
        values["proposals"] = [_candidate(found, plan) for found in plan.fitting.proposals]
        values["smallest"] = _candidate(plan.fitting.smallest, plan)
        part, place, size = plan.fitting.held_up_by
        values["held_up_by"] = {"part": part, "place": place, "bytes": size}
    return values


def _candidate(candidate: Candidate, plan: Plan) -> dict[str, Any]:
    prediction = candidate.prediction
    return {
        "changes": candidate.changes,
        "peak_bytes": (prediction.gpu if plan.on_gpu else prediction.cpu).total,
        "needed_bytes": candidate.bytes,
        "relative_time": prediction.flops / plan.prediction.flops,
        "notes": candidate.notes,
    }
