"""Combine the comparison tables of several data sets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geotune.bench.analysis import (
    ComparisonTable,
    Context,
    MethodSummary,
    context_of,
    reference_of,
)
from geotune.bench.grid import Labels, RunSpec
from geotune.bench.statistics import Difference, combine, levels
from geotune.bench.suite import Compare
from geotune.report import number_format as fmt


@dataclass(frozen=True)
class CombinedTable:
    """The relative differences of each method to the reference over several data sets.

    Attributes:
        context: what the combined tables have in common.
        recipes: the data sets on which any method was compared.
        differences: over the data sets on which the method was compared, by method.
        by_recipe: the relative difference on each data set, by method; NaN where not compared.
    """

    context: Labels
    reference: str
    recipes: list[str]
    differences: dict[str, Difference]
    by_recipe: dict[str, list[float]]


def combine_tables(
    tables: Sequence[ComparisonTable],
    planned: Mapping[Context, Sequence[str]],
    options: Compare,
) -> list[CombinedTable]:
    """Combine tables that differ in the recipe only, for methods compared in several of them.

    Methods that are planned on several data sets share the error rate, see `planned_methods`. A
    suite may be unfinished, and a method need not fit every backbone, so that a method may be
    missing on a data set. One that failed there gets no verdict: leaving out the data sets on
    which a method fails would favour it.
    """
    groups: dict[tuple[Any, ...], list[ComparisonTable]] = {}
    for table in tables:
        if options.combine and table.recipe not in options.combine:
            continue
        if not any(line.difference for line in table.lines):
            continue
        others = {axis: label for axis, label in table.context.items() if axis != "recipe"}
        groups.setdefault((table.reference, *others.items()), []).append(table)
    combined = []
    for (reference, *context), group in groups.items():
        methods = dict.fromkeys(line.method for table in group for line in table.lines)
        lines = {name: [_line_of(table, name) for table in group] for name in methods}
        found = {
            name: each
            for name, each in lines.items()
            if sum(line is not None and line.difference is not None for line in each) > 1
        }
        if found:
            several = _on_several(planned, options, dict(context), reference)
            level_of = levels(options.level, several, options.primary)
            recipes = [table.recipe for table in group]
            combined.append(
                CombinedTable(
                    dict(context),
                    reference,
                    recipes,
                    {
                        name: _combine(each, recipes, level_of[name], options.margin)
                        for name, each in found.items()
                    },
                    {
                        name: [
                            line.difference.relative if line and line.difference else math.nan
                            for line in each
                        ]
                        for name, each in found.items()
                    },
                )
            )
    return combined


def planned_methods(specs: Sequence[RunSpec], options: Compare) -> dict[Context, list[str]]:
    """The methods of each table, finished or not, by its context."""
    methods: dict[Context, dict[str, None]] = {}
    for spec in specs:
        methods.setdefault(context_of(spec, options), {})[spec.method] = None
    return {context: [*names] for context, names in methods.items()}


def _on_several(
    planned: Mapping[Context, Sequence[str]], options: Compare, context: Labels, reference: str
) -> list[str]:
    """The methods that are compared with a reference on several data sets."""
    count: Counter[str] = Counter()
    for labels, methods in planned.items():
        others = dict(labels)
        recipe = others.pop("recipe")
        if others != context or (options.combine and recipe not in options.combine):
            continue
        if reference_of(methods, options) == reference:
            count.update(name for name in methods if name != reference)
    return [name for name, data_sets in count.items() if data_sets > 1]


def _line_of(table: ComparisonTable, method: str) -> MethodSummary | None:
    return next((line for line in table.lines if line.method == method), None)


def _combine(
    lines: Sequence[MethodSummary | None], recipes: Sequence[str], level: float, margin: float
) -> Difference:
    differences = [line.difference for line in lines if line and line.difference]
    failed = [
        recipe
        for recipe, line in zip(recipes, lines, strict=True)
        if line and line.errors and line.difference is None
    ]
    reason = f"failed on {fmt.listing(failed)}" if failed else ""
    return combine(differences, level, margin, reason)
