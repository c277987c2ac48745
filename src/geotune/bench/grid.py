"""From a suite to its runs: each with a name, labels, and a recipe that was read."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from geotune.bench.baselines import BASELINES
from geotune.bench.suite import Changes, Suite, nearest
from geotune.config import Recipe, load_recipe
from geotune.errors import RecipeError

METHOD = "method"
"""The axis of what is compared, where none of the grid varies the method."""

Labels = dict[str, Any]
"""By axis what was chosen: `recipe`, those of the grid, `fraction`, `seed`."""


@dataclass(frozen=True)
class RunSpec:
    """One combination of what varies: a line in the table of all runs.

    Attributes:
        name: of its run's folder, below that of all runs.
        labels: what was chosen.
        changes: what that changes in the recipe, by key.
        path: of the recipe.
        recipe: with the changes.
        axis: of the labels, along which is compared.
    """

    name: str
    labels: Labels
    changes: Changes
    path: Path
    recipe: Recipe
    axis: str

    @property
    def overrides(self) -> tuple[str, ...]:
        """The changes as words of a command."""
        return as_overrides(self.changes)

    @property
    def method(self) -> str:
        """The label of what is compared."""
        return str(self.labels[self.axis])

    @property
    def group(self) -> Labels:
        """All labels but the seed: what a mean is of."""
        return {axis: label for axis, label in self.labels.items() if axis != "seed"}

    @property
    def context(self) -> Labels:
        """All labels but method and seed: within what methods are compared."""
        return {axis: label for axis, label in self.group.items() if axis != self.axis}

    def with_changes(self, changes: Changes) -> RunSpec:
        """The same with more changes."""
        changed = {**self.changes, **changes}
        recipe, _ = load_recipe(self.path, as_overrides(changed))
        return replace(self, changes=changed, recipe=recipe)


def as_overrides(changes: Changes) -> tuple[str, ...]:
    """Changes as `key=value`: sections, then kinds, which start theirs anew, then the rest."""

    def rank(key: str) -> int:
        return 0 if "." not in key else 1 if key.endswith(".kind") else 2

    return tuple(f"{key}={_as_yaml(changes[key])}" for key in sorted(changes, key=rank))


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=9999).split("\n")[0]


def expand(suite: Suite) -> tuple[list[RunSpec], list[str]]:
    """The cells of a suite, in order, and what a user should know.

    Raises `RecipeError` for a combination under which a recipe does not read, two runs that would
    share a folder, and labels to leave out that there are not.
    """
    axis = next((a for a, each in suite.grid.items() if _about_methods(each)), METHOD)
    _check_exclude(suite, axis)
    cells: list[RunSpec] = []
    notes: list[str] = []
    for recipe in suite.recipes:
        own = [_cell(suite, axis, recipe, *chosen) for chosen in _chosen(suite, axis, recipe)]
        cells += [cell for cell in own if cell is not None]
        for name in BASELINES:
            if getattr(suite.baselines, name) and name not in suite.grid.get(axis, {}):
                cells += _baseline(suite, axis, recipe, name, cells, notes)
    if not cells:
        raise RecipeError("exclude: leaves no run")
    _refuse_shared_folders(cells)
    return cells, list(dict.fromkeys(notes))


def _about_methods(choices: dict[str, Changes]) -> bool:
    return any(key.split(".")[0] == "method" for changes in choices.values() for key in changes)


def _chosen(
    suite: Suite, axis: str, recipe: str, *, methods: bool = True
) -> Iterator[tuple[Labels, Changes]]:
    """Labels and changes of every combination; without the `methods` of the grid, or with them."""
    axes = {
        name: list(choices.items())
        for name, choices in suite.grid.items()
        if methods or name != axis
    }
    if suite.fractions:
        axes["fraction"] = [(str(f), {"data.fraction": f}) for f in suite.fractions]
    axes["seed"] = [(str(seed), {"train.seed": seed}) for seed in suite.seeds]
    for combination in itertools.product(*axes.values()):
        labels: Labels = {"recipe": recipe}
        changes = {**suite.set, **suite.recipes[recipe].set}
        for name, (label, of_label) in zip(axes, combination, strict=True):
            labels[name] = of_label["train.seed"] if name == "seed" else label
            changes |= of_label
        yield labels, changes


def _cell(suite: Suite, axis: str, name: str, labels: Labels, changes: Changes) -> RunSpec | None:
    """The cell of a combination; None where it is left out."""
    path = suite.recipes[name].path
    if axis in labels and _left_out(suite, labels):  # it may be left out because it does not read
        return None
    try:
        recipe, _ = load_recipe(path, as_overrides(changes))
    except RecipeError as error:
        said = ", ".join(f"{axis} {label}" for axis, label in labels.items() if axis != "recipe")
        raise RecipeError(f"{name} with {said}: {error}") from error
    if axis not in labels:
        labels = {"recipe": name, axis: recipe.method.kind, **labels}
        if _left_out(suite, labels):
            return None
    return RunSpec(folder_name(labels), labels, changes, path, recipe, axis)


def _baseline(
    suite: Suite, axis: str, recipe: str, name: str, cells: Sequence[RunSpec], notes: list[str]
) -> list[RunSpec]:
    """The cells of a baseline: it takes the place of every method.

    Those that are one training, such as a UNet from scratch beside several backbones, are one run.
    """
    baseline = BASELINES[name]
    found: list[RunSpec] = []
    for labels, changes in _chosen(suite, axis, recipe, methods=False):
        labels = {"recipe": recipe, axis: name, **labels}
        if _left_out(suite, labels):
            continue
        plain, _ = load_recipe(suite.recipes[recipe].path, as_overrides(changes))
        refusal = baseline.refuses(plain)
        if refusal is not None:
            notes.append(f"{recipe}: {refusal}")
            continue
        own = baseline.changes(plain)
        sections = {key for key in own if "." not in key}
        kept = {key: value for key, value in changes.items() if key.split(".")[0] not in sections}
        cell = _cell(suite, axis, recipe, labels, {**kept, **own})
        if cell is None or any(_same_training(cell, other) for other in cells):
            continue
        first = next((other for other in found if other.recipe == cell.recipe), cell)
        found.append(replace(cell, name=first.name))
    return found


def _same_training(cell: RunSpec, other: RunSpec) -> bool:
    return cell.context == other.context and cell.recipe == other.recipe


def _left_out(suite: Suite, labels: Labels) -> bool:
    return any(
        all(str(labels.get(axis)) in map(str, left_out) for axis, left_out in out.items())
        for out in suite.exclude
    )


def _check_exclude(suite: Suite, axis: str) -> None:
    known: dict[str, list[str]] = {
        "recipe": list(suite.recipes),
        "seed": [str(seed) for seed in suite.seeds],
        "fraction": [str(f) for f in suite.fractions],
        **{name: list(choices) for name, choices in suite.grid.items()},
    }
    if axis in known:
        known[axis] += list(BASELINES)
    for i, out in enumerate(suite.exclude):
        for name, left_out in out.items():
            if name not in known and name != axis:
                raise RecipeError(
                    f"exclude.{i}.{name}: nothing of that name varies; {nearest(name, known)}"
                )
            for label in left_out:
                if name in known and str(label) not in known[name]:
                    raise RecipeError(
                        f"exclude.{i}.{name}: {label!r} is none of its choices; "
                        f"{nearest(str(label), known[name])}"
                    )


def folder_name(labels: Labels) -> str:
    """A name for a folder, of what was chosen: `ships/est-0`."""
    recipe, *others = (re.sub(r"[^\w.+]+", "_", str(label)) for label in labels.values())
    return f"{recipe}/{'-'.join(others)}"


def _refuse_shared_folders(cells: Sequence[RunSpec]) -> None:
    first: dict[str, RunSpec] = {}
    for cell in cells:
        other = first.setdefault(cell.name.lower(), cell)  # file systems may not tell case apart
        again = other is not cell and other.recipe == cell.recipe and other.method in BASELINES
        if other is not cell and not (again and other.labels != cell.labels):
            raise RecipeError(
                f"two runs would write to {cell.name}: {_said(other)} and {_said(cell)}; "
                "give them other labels, or leave one out"
            )


def _said(cell: RunSpec) -> str:
    return "(" + ", ".join(f"{axis} {label}" for axis, label in cell.labels.items()) + ")"
