"""Expand a suite into its runs, each with a name, labels and a validated recipe."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from geotune.bench.baselines import BASELINES
from geotune.bench.run_table import RunTable, read_run_table
from geotune.bench.suite import Changes, Suite
from geotune.config import Recipe, load_recipe
from geotune.errors import RecipeError
from geotune.utils.text import suggest

METHOD = "method"
"""The axis that is compared if no axis of the grid changes the method."""

Labels = dict[str, Any]
"""The choice on each axis: `recipe`, the axes of the grid, `fraction`, `seed`."""


@dataclass(frozen=True)
class RunSpec:
    """One combination of the grid, which is one training run.

    Attributes:
        name: the run folder, relative to `runs/`.
        labels: the choice on each axis.
        changes: the recipe keys that the choices set, with their values.
        path: the recipe file.
        recipe: the recipe with the changes applied.
        axis: the axis whose labels are compared, usually the method.
    """

    name: str
    labels: Labels
    changes: Changes
    path: Path
    recipe: Recipe
    axis: str

    @property
    def overrides(self) -> tuple[str, ...]:
        """The changes as `key=value` arguments of a command."""
        return as_overrides(self.changes)

    @property
    def method(self) -> str:
        """The label on the compared axis."""
        return str(self.labels[self.axis])

    @property
    def group(self) -> Labels:
        """All labels except the seed; means are taken within a group."""
        return {axis: label for axis, label in self.labels.items() if axis != "seed"}

    @property
    def context(self) -> Labels:
        """All labels except method and seed; methods are compared within a context."""
        return {axis: label for axis, label in self.group.items() if axis != self.axis}

    def with_changes(self, changes: Changes) -> RunSpec:
        """A copy with more changes."""
        changed = {**self.changes, **changes}
        recipe, _ = load_recipe(self.path, as_overrides(changed))
        return replace(self, changes=changed, recipe=recipe)


def as_overrides(changes: Changes) -> tuple[str, ...]:
    """Changes as `key=value`."""
    return tuple(f"{key}={_as_yaml(value)}" for key, value in changes.items())


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=9999).split("\n")[0]


def expand(suite: Suite) -> tuple[list[RunSpec], list[str]]:
    """The runs of a suite, in order, and notes for the user.

    Raises `RecipeError` for a combination that makes a recipe invalid, two runs with one folder,
    and unknown labels in `exclude`.
    """
    axis = next((a for a, each in suite.grid.items() if _sets_method(each)), METHOD)
    _check_exclude(suite, axis)
    table = read_run_table(suite)
    specs: list[RunSpec] = []
    notes: list[str] = []
    for recipe in suite.recipes:
        changed = [
            _run_spec(suite, axis, recipe, *chosen)
            for chosen in _combinations(suite, axis, recipe, table=table)
        ]
        specs += [spec for spec in changed if spec is not None]
        for name in BASELINES:
            if getattr(suite.baselines, name) and name not in suite.grid.get(axis, {}):
                specs += _baseline(suite, axis, recipe, name, specs, notes)
    if not specs:
        raise RecipeError(
            "exclude: excludes every run; remove an entry", code="suite-invalid", key="exclude"
        )
    _check_folder_names(specs)
    return specs, list(dict.fromkeys(notes))


def _sets_method(choices: dict[str, Changes]) -> bool:
    return any(key.split(".")[0] == "method" for changes in choices.values() for key in changes)


def _combinations(
    suite: Suite, axis: str, recipe: str, *, methods: bool = True, table: RunTable | None = None
) -> Iterator[tuple[Labels, Changes]]:
    """Labels and changes of every combination, or of those in a table.

    `methods`: whether to vary the compared axis.
    """
    axes = {
        name: list(choices.items())
        for name, choices in suite.grid.items()
        if methods or name != axis
    }
    if suite.fractions:
        axes["fraction"] = [(str(f), {"data.fraction": f}) for f in suite.fractions]
    axes["seed"] = [(str(seed), {"train.seed": seed}) for seed in suite.seeds]
    own = suite.recipes[recipe]
    for combination in itertools.product(*axes.values()):
        labels: Labels = {"recipe": recipe}
        changes = {**suite.set, **own.set}
        for name, (label, label_changes) in zip(axes, combination, strict=True):
            labels[name] = label_changes["train.seed"] if name == "seed" else label
            changes |= label_changes | own.choices.get(name, {}).get(label, {})
        if table is not None:
            listed = table.get((recipe, *(labels[name] for name in suite.grid)))
            if listed is None:
                continue
            changes |= listed
        yield labels, changes


def _run_spec(
    suite: Suite, axis: str, name: str, labels: Labels, changes: Changes
) -> RunSpec | None:
    """The run of a combination; None if it is excluded."""
    path = suite.recipes[name].path
    if axis in labels and _excluded(suite, labels):  # an excluded recipe may be invalid
        return None
    try:
        recipe, _ = load_recipe(path, as_overrides(changes))
    except RecipeError as error:
        combination = ", ".join(
            f"{axis} {label}" for axis, label in labels.items() if axis != "recipe"
        )
        raise RecipeError(
            f"{name} with {combination}: {error}", code=error.code, key=error.key, file=error.file
        ) from error
    if axis not in labels:
        labels = {"recipe": name, axis: recipe.method.kind, **labels}
        if _excluded(suite, labels):
            return None
    return RunSpec(folder_name(labels), labels, changes, path, recipe, axis)


def _baseline(
    suite: Suite, axis: str, recipe: str, name: str, specs: Sequence[RunSpec], notes: list[str]
) -> list[RunSpec]:
    """The runs of a baseline, in every context.

    Identical runs, such as a UNet from scratch compared with several backbones, share a run.
    """
    baseline = BASELINES[name]
    added: list[RunSpec] = []
    for labels, changes in _combinations(suite, axis, recipe, methods=False):
        labels = {"recipe": recipe, axis: name, **labels}
        if _excluded(suite, labels):
            continue
        plain, _ = load_recipe(suite.recipes[recipe].path, as_overrides(changes))
        reason = baseline.unsupported(plain)
        if reason is not None:
            notes.append(f"{recipe}: {reason}")
            continue
        changed = baseline.changes(plain)
        sections = {key for key in changed if "." not in key}
        kept = {key: value for key, value in changes.items() if key.split(".")[0] not in sections}
        spec = _run_spec(suite, axis, recipe, labels, {**kept, **changed})
        if spec is None or any(_same_training(spec, other) for other in specs):
            continue
        first = next((other for other in added if other.recipe == spec.recipe), spec)
        added.append(replace(spec, name=first.name))
    return added


def _same_training(spec: RunSpec, other: RunSpec) -> bool:
    return spec.context == other.context and spec.recipe == other.recipe


def _excluded(suite: Suite, labels: Labels) -> bool:
    return any(
        all(
            str(labels.get(axis)) in map(str, excluded_labels)
            for axis, excluded_labels in exclusion.items()
        )
        for exclusion in suite.exclude
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
    for i, exclusion in enumerate(suite.exclude):
        for name, excluded_labels in exclusion.items():
            if name not in known and name != axis:
                raise RecipeError(
                    f"exclude.{i}.{name}: not an axis of the suite; {suggest(name, known)}",
                    code="suite-invalid",
                    key=f"exclude.{i}.{name}",
                )
            for label in excluded_labels:
                if name in known and str(label) not in known[name]:
                    raise RecipeError(
                        f"exclude.{i}.{name}: {label!r} is not a choice of this axis; "
                        f"{suggest(str(label), known[name])}",
                        code="suite-invalid",
                        key=f"exclude.{i}.{name}",
                    )


def folder_name(labels: Labels) -> str:
    """The folder of a run, from its labels: `ships/est-0`."""
    recipe, *others = (re.sub(r"[^\w.+]+", "_", str(label)) for label in labels.values())
    return f"{recipe}/{'-'.join(others)}"


def _check_folder_names(specs: Sequence[RunSpec]) -> None:
    first: dict[str, RunSpec] = {}
    for spec in specs:
        other = first.setdefault(spec.name.lower(), spec)  # some file systems ignore case
        same_run = other is not spec and other.recipe == spec.recipe and other.method in BASELINES
        if other is not spec and not (same_run and other.labels != spec.labels):
            raise RecipeError(
                f"two runs would write to {spec.name}: {_labels_text(other)} and "
                f"{_labels_text(spec)}; change a label, or exclude one of them",
                code="suite-run-duplicate",
            )


def _labels_text(spec: RunSpec) -> str:
    return "(" + ", ".join(f"{axis} {label}" for axis, label in spec.labels.items()) + ")"
