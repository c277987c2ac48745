"""`geotune plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geotune.cli.console import Json, escape, out, print_json, recipe_of, say

if TYPE_CHECKING:
    from geotune.api.planning import Plan


def plan(
    recipe: Path,
    *overrides: str,
    budget: str | None = None,
    figure: Path | None = None,
    as_json: Json = False,
) -> None:
    """Say what peak memory a recipe's training takes, before training and without a GPU.

    Parameters
    ----------
    recipe
        The YAML file; its data is opened only where the recipe names no bands.
    overrides
        Changes to it, such as method.kind=lora train.batch_size=4.
    budget
        Memory to keep to, such as 8GB: proposes settings that do, best first.
    figure
        An SVG or PNG to draw the parts in.
    """
    read = recipe_of(recipe, overrides)
    from geotune.config import parse_size
    from geotune.errors import RecipeError

    try:
        limit = None if budget is None else parse_size(budget)
    except ValueError as error:
        raise RecipeError(f"--budget: {error}") from error
    if figure is not None and figure.suffix not in (".svg", ".png"):
        raise RecipeError(f"--figure {figure}: expected a file that ends in .svg or .png")
    from geotune.api.planning import plan_recipe, plan_values

    found = plan_recipe(read, read.train.memory_budget if limit is None else limit, say)
    for note in found.notes:
        say(f"note: {note}")
    if figure is not None:
        from geotune.report.memory_plot import draw_memory

        parts = plan_values(found)["by_place"]
        draw_memory(figure, parts, f"{recipe.name}: peak memory of a training step")
    if as_json:
        print_json(plan_values(found))
    else:
        _show_plan(found)


def _show_plan(plan: Plan) -> None:
    from rich.table import Table

    from geotune.api.budget_search import as_overrides
    from geotune.memory.estimate import CUDA_CONTEXT_BYTES, allocator_bytes
    from geotune.memory.tracker import PARTS
    from geotune.report.number_format import DASH
    from geotune.report.number_format import size as _size

    def size(value: int) -> str:
        return _size(value) if value else DASH

    by_place, prediction = plan.peak.by_place, plan.prediction
    places = list(by_place)
    table = Table(box=None, pad_edge=False)
    for column in ("", *places, "all"):
        table.add_column(column, justify="right" if column else "left")
    for part in PARTS:
        sizes = [by_place[place].get(part, 0) for place in places]
        table.add_row(part.replace("_", " "), *map(size, sizes), size(sum(sizes)))
    totals = [sum(by_place[place].values()) for place in places]
    table.add_row("[bold]peak[/bold]", *map(size, totals), f"[bold]{size(plan.peak.total)}[/bold]")
    out().print(table)
    out().print(f"windows at once: {plan.micro_batch}")
    out().print(f"on a CPU: {size(prediction.cpu.total)} beside what the program itself takes")
    out().print(
        f"on a GPU: {size(prediction.gpu_bytes)}: tensors {size(prediction.gpu.total)}, gaps of "
        f"the allocator {size(allocator_bytes(prediction.gpu.total))} and the CUDA context "
        f"{size(CUDA_CONTEXT_BYTES)} (both assumed)"
    )
    if plan.fitting is None:
        return
    limit, proposals = size(plan.fitting.budget), plan.fitting.proposals
    table = Table(box=None, pad_edge=False)
    for column in ("changes", "needs", "time"):
        table.add_column(column, justify="left" if column == "changes" else "right")
    for found in proposals or [plan.fitting.smallest]:
        changes = " ".join(as_overrides(found.changes)) or "as it is"
        time = found.prediction.flops / prediction.flops
        table.add_row(escape(changes), size(found.bytes), f"{time:.2f}")
        for note in found.notes:
            table.add_row(f"[dim]  {escape(note)}[/dim]")
    out().print()
    if proposals:
        out().print(f"within {limit}, best first (time: operations of a step, as it is = 1)")
    else:
        what, where, held = plan.fitting.held_up_by
        out().print(
            f"nothing fits within {limit}; the smallest is held up by {size(held)} of "
            f"{what.replace('_', ' ')} ({where})"
        )
    out().print(table)
