"""`geotune plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json, print_table, show_progress

if TYPE_CHECKING:
    from geotune.api.planning import Plan


def plan(
    recipe: Path,
    *overrides: str,
    budget: str | None = None,
    pretrain: Annotated[bool, Parameter(negative="")] = False,
    time: Annotated[bool, Parameter(negative="")] = False,
    figure: Path | None = None,
    as_json: Json = False,
) -> None:
    """Estimate the peak memory of a recipe's training, before training and without a GPU.

    Parameters
    ----------
    recipe
        The YAML file; its data files are opened only if the recipe does not name the bands.
    overrides
        Changes, such as method.kind=lora train.batch_size=4.
    budget
        Memory limit, such as 8GB: search for settings that fit, best first.
    pretrain
        Of geotune pretrain with this recipe.
    time
        Also estimate the time: read the data and measure two training steps on this machine.
    figure
        SVG or PNG file to draw the components in.
    """
    from geotune.errors import RecipeError

    if figure is not None and figure.suffix not in (".svg", ".png"):
        raise RecipeError(
            f"--figure {figure}: expected a file name that ends in .svg or .png",
            code="option-invalid",
            file=figure,
        )
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.planning import plan as plan_recipe
            from geotune.api.planning import plan_to_dict
            from geotune.api.pretraining import pretraining_recipe
        found = plan_recipe(
            pretraining_recipe(recipe, overrides, message) if pretrain else recipe,
            () if pretrain else overrides,
            budget=budget,
            time=time,
            on_message=message,
            on_progress=on_progress,
        )
    for note in found.notes:
        message(f"note: {note}")
    if figure is not None:
        from geotune.report.memory_plot import draw_memory

        parts = plan_to_dict(found)["by_place"]
        draw_memory(figure, parts, f"{recipe.name}: peak memory of a training step")
    if as_json:
        print_json(plan_to_dict(found))
    else:
        _show_plan(found)


def _show_plan(plan: Plan) -> None:
    from rich.table import Table

    from geotune.api.budget_search import as_overrides
    from geotune.memory.estimate import CUDA_CONTEXT_BYTES, allocator_bytes
    from geotune.memory.tracker import CATEGORIES
    from geotune.report.number_format import DASH
    from geotune.report.number_format import size as _size

    def size(value: int) -> str:
        return _size(value) if value else DASH

    by_place, prediction = plan.peak.by_scope, plan.prediction
    places = list(by_place)
    table = Table(box=None, pad_edge=False)
    for column in ("", *places, "all"):
        table.add_column(column, justify="right" if column else "left")
    for part in CATEGORIES:
        sizes = [by_place[place].get(part, 0) for place in places]
        table.add_row(part.replace("_", " "), *map(size, sizes), size(sum(sizes)))
    totals = [sum(by_place[place].values()) for place in places]
    table.add_row("[bold]peak[/bold]", *map(size, totals), f"[bold]{size(plan.peak.total)}[/bold]")
    print_table(table)
    out().print(f"micro-batch: {plan.micro_batch}")
    out().print(f"precision: {plan.precision}")
    out().print(f"on a CPU: {size(prediction.cpu.total)} in addition to the program itself")
    out().print(
        f"on a GPU: {size(prediction.total_gpu_bytes)}: tensors {size(prediction.gpu.total)}, "
        f"allocator overhead {size(allocator_bytes(prediction.gpu.total))} and CUDA context "
        f"{size(CUDA_CONTEXT_BYTES)} (both assumed)"
    )
    if plan.time is not None:
        from geotune.training.time_estimate import clock

        out().print(f"time: {plan.time}, until {clock(plan.time.seconds)} if started now")
    if plan.budget is None:
        return
    limit, proposals = size(plan.budget.budget), plan.budget.proposals
    table = Table(box=None, pad_edge=False)
    for column in ("changes", "needs", "time"):
        table.add_column(column, justify="left" if column == "changes" else "right")
    for proposal in proposals or [plan.budget.smallest]:
        changes = " ".join(as_overrides(proposal.changes)) or "unchanged"
        time = proposal.prediction.flops / prediction.flops
        table.add_row(escape(changes), size(proposal.bytes), f"{time:.2f}")
        for note in proposal.notes:
            table.add_row(f"[dim]  {escape(note)}[/dim]")
    out().print()
    if proposals:
        out().print(f"within {limit}, best first (time: operations per step, unchanged = 1)")
    else:
        kind, scope, held = plan.budget.largest_component
        out().print(
            f"no setting fits within {limit}; the largest component of the smallest one is "
            f"{kind.replace('_', ' ')} ({scope}), {size(held)}"
        )
    print_table(table)
