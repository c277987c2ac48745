"""Search for settings of a recipe that fit a memory budget.

Changes are tried in order of their cost to the user, those that keep the results first, each on top
of the previous ones, and kept if they save memory. Finally, changes that turn out to be unnecessary
are undone, most expensive first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from geotune.config import Recipe, parse_recipe
from geotune.config.method_options import EstOptions
from geotune.data.raster.orientation import NUM_ORIENTATIONS
from geotune.errors import GeotuneError
from geotune.feature_cache.cache_estimate import CacheEstimate
from geotune.memory.estimate import PeakEstimate
from geotune.report.number_format import size
from geotune.training.micro_batching import next_smaller_divisor

MAX_REMAINING_SHARE = 0.99
"""A change must bring the peak below this share of its previous value."""
BLOCK_STRIDES = (2, 3, 4, 6)
FROZEN_PRECISIONS = ("bf16", "int8")
OTHER_METHODS = ("est", "frozen")
Predict = Callable[[Recipe], tuple[PeakEstimate, CacheEstimate | None]]


@dataclass(frozen=True)
class Change:
    """New values by key, such as `train.cache`, and their cost; lower is tried first."""

    values: dict[str, Any]
    cost: int


CACHE = Change({"train.cache": "disk"}, 400)
"""Applies to methods with a frozen backbone."""


@dataclass(frozen=True)
class Candidate:
    """A recipe with changes.

    Attributes:
        changes: new values by key.
        cache: estimate of the feature cache; None without `train.cache`.
        bytes: memory that must be free on the device.
        costs: of the changes, by key.
    """

    recipe: Recipe
    changes: dict[str, Any]
    prediction: PeakEstimate
    cache: CacheEstimate | None
    bytes: int
    costs: dict[str, int]

    @property
    def notes(self) -> list[str]:
        """Consequences of the changes, for the user."""
        notes = [note for key in self.changes if (note := _note(key, self.recipe))]
        if self.cache is not None:
            notes.append(cache_note(self.recipe, self.cache))
        return notes

    @property
    def rank(self) -> tuple[list[int], int]:
        """Sort key; the best candidate has the smallest."""
        return sorted(self.costs.values(), reverse=True), self.bytes


@dataclass(frozen=True)
class BudgetResult:
    """Result of a budget search.

    Attributes:
        budget: in bytes.
        proposals: candidates that fit, best first; empty if none does.
        smallest: the candidate that needs the least memory.
        largest_component: kind, module scope and bytes of its largest component.
    """

    budget: int
    proposals: list[Candidate]
    smallest: Candidate
    largest_component: tuple[str, str, int]


def search_budget(
    recipe: Recipe,
    budget: int,
    predict: Predict,
    bytes_needed: Callable[[PeakEstimate, CacheEstimate | None], int],
    *,
    world: int = 1,
    alternatives: bool = True,
    frozen_precisions: Sequence[str] = FROZEN_PRECISIONS,
) -> BudgetResult:
    """Search for changes of a recipe that fit the budget.

    Args:
        recipe: to change.
        budget: in bytes.
        predict: estimates the memory and the cache of a recipe; raises `GeotuneError` for an
            invalid combination.
        bytes_needed: the memory of a prediction that counts against the budget.
        world: number of processes that share a batch.
        alternatives: search for more than one proposal.
        frozen_precisions: values of `method.frozen_precision` to try.
    """
    search = _Search(recipe, budget, predict, bytes_needed, world, frozen_precisions)
    return search.run(alternatives)


class _Search:
    def __init__(
        self,
        recipe: Recipe,
        budget: int,
        predict: Predict,
        bytes_needed: Callable[[PeakEstimate, CacheEstimate | None], int],
        world: int,
        frozen_precisions: Sequence[str],
    ) -> None:
        self.recipe = recipe
        self.budget = budget
        self.predict = predict
        self.bytes_needed = bytes_needed
        self.world = world
        self.frozen_precisions = frozen_precisions
        self.tried: dict[str, Candidate | None] = {}

    def run(self, alternatives: bool) -> BudgetResult:
        proposals: list[Candidate] = []
        asked = self.candidate({}, {})
        assert asked is not None
        for start in self.starting_points(asked):
            proposals = self.proposals(start, alternatives)
            if proposals:
                break
        found = [candidate for candidate in self.tried.values() if candidate is not None]
        smallest = min(found, key=lambda candidate: candidate.bytes)
        if not proposals:
            smallest = self.drop_unneeded(smallest, asked, smallest.bytes)
        peak = smallest.prediction.cpu
        size, part, place = max(
            (size, part, place)
            for place, parts in peak.by_scope.items()
            for part, size in parts.items()
        )
        return BudgetResult(self.budget, proposals, smallest, (part, place, size))

    def starting_points(self, asked: Candidate) -> Iterator[Candidate]:
        """The recipe's own method, then other methods."""
        yield asked
        own = self.recipe.method
        for kind in OTHER_METHODS:
            if kind == own.kind:
                continue
            section = {
                "kind": kind,
                "stem_width": own.stem_width,
                "frozen_precision": own.frozen_precision,
            }
            start = self.candidate({"method": section}, {"method": 1000})
            if start is not None:
                yield start

    def proposals(self, start: Candidate, alternatives: bool) -> list[Candidate]:
        first = self.descend(start)
        if not self.fits(first):
            return []
        found = [self.drop_unneeded(first, start, self.budget)]
        if alternatives:
            for key in sorted(found[0].changes.keys() - start.changes.keys()):
                other = self.descend(start, without=key)
                if self.fits(other):
                    found.append(self.drop_unneeded(other, start, self.budget))
        unique = {_name(candidate.changes): candidate for candidate in found}
        return sorted(unique.values(), key=lambda candidate: candidate.rank)

    def descend(self, start: Candidate, without: str = "") -> Candidate:
        """Apply one change after another until the candidate fits or no change is left."""
        changes = [
            change
            for change in self.changes(start.recipe)
            if without not in change.values
            and not (change == CACHE and self.changed(start, [CACHE]) is None)
        ]
        best = start
        if self.fits(start):
            return start
        utmost = self.changed(start, changes)
        if utmost is not None and not self.fits(utmost):
            return utmost  # even all changes together do not fit
        for change in changes:
            trial = self.changed(best, [change])
            if trial is not None and trial.bytes <= MAX_REMAINING_SHARE * best.bytes:
                best = trial
            if self.fits(best):
                break
        return best

    def changed(self, start: Candidate, changes: Sequence[Change]) -> Candidate | None:
        """The candidate with further changes; None for an invalid combination."""
        values, costs = dict(start.changes), dict(start.costs)
        for change in changes:
            values |= change.values
            costs |= dict.fromkeys(change.values, change.cost)
        return self.candidate(values, costs)

    def drop_unneeded(self, best: Candidate, start: Candidate, limit: int) -> Candidate:
        """Undo or weaken changes, most expensive first, while `limit` bytes suffice."""
        for key in sorted(best.changes, key=lambda key: -best.costs[key]):
            if key in start.changes or key == "method":  # other changes may belong to that method
                continue
            milder = [
                change
                for change in self.changes(start.recipe)
                if key in change.values and change.cost < best.costs[key]
            ]
            others = {k: v for k, v in best.changes.items() if k != key}
            costs = {k: best.costs[k] for k in others}
            for change in (Change({}, 0), *milder):
                changes = others | change.values
                trial = self.candidate(changes, costs | dict.fromkeys(change.values, change.cost))
                if trial is not None and trial.bytes <= limit:
                    best = trial
                    break
        return best

    def changes(self, recipe: Recipe) -> list[Change]:
        """Possible changes, cheapest first: those that keep the results before the others."""
        changes = _changes(recipe, self.world, self.frozen_precisions)
        return sorted(changes, key=lambda change: change.cost)

    def fits(self, candidate: Candidate) -> bool:
        return candidate.bytes <= self.budget

    def candidate(self, changes: dict[str, Any], costs: dict[str, int]) -> Candidate | None:
        """The recipe with these changes; None for an invalid combination."""
        name = _name(changes)
        if name not in self.tried:
            try:
                changed = with_changes(self.recipe, changes)
                prediction, cache = self.predict(changed)
            except GeotuneError:
                if not changes:
                    raise
                self.tried[name] = None
            else:
                needed = self.bytes_needed(prediction, cache)
                self.tried[name] = Candidate(changed, changes, prediction, cache, needed, costs)
        return self.tried[name]


def with_changes(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with new values by key."""
    values = recipe.model_dump(mode="json")
    for key, value in changes.items():
        section = values
        *parents, last = key.split(".")
        for parent in parents:
            section = section[parent]
        section[last] = value
    return parse_recipe(values)


def _changes(recipe: Recipe, world: int, frozen_precisions: Sequence[str]) -> Iterator[Change]:
    levels = ("none", "decoder", "all")
    for cost, level in enumerate(levels):
        if cost > levels.index(recipe.train.activation_checkpointing):
            yield Change({"train.activation_checkpointing": level}, cost)
    per_device = recipe.train.batch_size // world
    smaller = next_smaller_divisor(per_device // recipe.train.accumulate_steps)
    cost = 100
    while smaller is not None:
        yield Change({"train.accumulate_steps": per_device // smaller}, cost)
        smaller, cost = next_smaller_divisor(smaller), cost + 1
    precisions = ("fp32", *FROZEN_PRECISIONS)
    for cost, precision in enumerate(precisions):
        lower = cost > precisions.index(recipe.method.frozen_precision)
        if lower and precision in frozen_precisions:
            yield Change({"method.frozen_precision": precision}, 200 + cost)
    if isinstance(recipe.method, EstOptions):
        now: int = recipe.method.block_stride or 1
        for stride in BLOCK_STRIDES:
            if stride > now:
                yield Change({"method.block_stride": stride}, 300 + stride)
    if recipe.train.cache == "none":
        yield CACHE


def as_overrides(changes: dict[str, Any]) -> list[str]:
    """Changes as `key=value` overrides."""
    written = []
    for key, value in changes.items():
        if isinstance(value, dict):  # the kind first: it resets the section
            written += as_overrides({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            written.append(f"{key}={value}")
    return written


def _name(changes: dict[str, Any]) -> str:
    return json.dumps(changes, sort_keys=True)


def cache_note(recipe: Recipe, estimate: CacheEstimate) -> str:
    """Describe training from a cache in one sentence."""
    medium = "disk" if recipe.train.cache == "disk" else "main memory"
    flips = recipe.data.augment.flips
    orientations = f" in each of {NUM_ORIENTATIONS} orientations" if flips else ""
    total = "" if estimate.train_bytes is None else f", {size(estimate.train_bytes)} for training"
    return (
        f"train.cache {recipe.train.cache}: {size(estimate.window_bytes)} of {medium} per window"
        f"{orientations}{total}; computing the features once needs {size(estimate.populate_bytes)} "
        "including the backbone; training windows are the same in every epoch, brightness "
        "augmentation is disabled"
    )


def _note(key: str, recipe: Recipe) -> str | None:
    if key == "train.accumulate_steps":
        steps = recipe.train.accumulate_steps
        micro = recipe.train.batch_size // steps
        return (
            f"batch norm sees {micro} windows at a time: the batch of {recipe.train.batch_size} is "
            f"computed in {steps} micro-batches"
        )
    if key == "method.frozen_precision":
        return f"frozen weights are rounded to {recipe.method.frozen_precision}"
    if key == "method.block_stride":
        return "the side network reads fewer blocks"
    if key == "method":
        return f"another method: {recipe.method.kind}"
    return None
