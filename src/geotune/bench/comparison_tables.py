"""Comparison tables for the terminal, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geotune.bench.analysis import COSTS, ComparisonTable, MethodSummary
from geotune.bench.combined_tables import CombinedTable
from geotune.bench.statistics import Estimate
from geotune.bench.suite import Compare
from geotune.report import number_format as fmt
from geotune.utils.metric_names import metric_name
from geotune.utils.text import pluralize

if TYPE_CHECKING:
    from rich.table import Table as RichTable

COLUMNS = (
    "method", "runs", "{metric}", "interval", "difference to {reference}", "difference interval",
    "verdict", "memory", "predicted", "time per step", "training time", "trained parameters",
    "adapter size", "energy",
)  # fmt: skip

CHOSEN_ON = (
    "Searched values were selected by the validation metric, of the same training data as the runs "
    "that use them (with folds, of each fold); the search read no test data."
)
"""The explanation of searched values."""


def trials_note(tables: Sequence[ComparisonTable]) -> str:
    """Whether the methods got the same trials."""
    unlike = [
        table.title
        for table in tables
        if len({tuple(value for value, _ in s["trials"]) for s in _searches(table)}) > 1
    ]
    failed = [
        table.title
        for table in tables
        if any(score is None for search in _searches(table) for _, score in search["trials"])
    ]
    same = "" if unlike else "Each method got the same trials."
    parts = [
        same,
        f"The trials differ in {fmt.listing(unlike)}." if unlike else "",
        f"Trials failed in {fmt.listing(failed)}." if failed else "",
    ]
    return " ".join(filter(None, parts))


def _searches(table: ComparisonTable) -> list[Mapping[str, Any]]:
    return [search for line in table.lines for search in line.searches]


def header(table: ComparisonTable) -> list[str]:
    """The column names."""
    return [name.format(metric=table.objective.name, reference=table.reference) for name in COLUMNS]


def cells(table: ComparisonTable, line: MethodSummary) -> list[str]:
    """The cells of a method's row, formatted."""
    estimate, cost = line.metrics.get(table.objective.metric), line.cost
    difference = line.difference
    return [
        line.method,
        str(len(line.runs))
        + (f" ({len(line.errors)} failed)" if line.errors else "")
        + (f" ({line.incomplete} without all folds)" if line.incomplete else ""),
        fmt.DASH if estimate is None else mean_std(estimate.mean, estimate.spread),
        fmt.DASH if estimate is None else interval(estimate.low, estimate.high),
        fmt.DASH if difference is None else signed(difference.mean),
        fmt.DASH if difference is None else interval(difference.low, difference.high, signs=True),
        "reference"
        if line.method == table.reference
        else str(difference)
        if difference
        else fmt.DASH,
        _mark(fmt.size(_whole(cost["memory_bytes"])), line.pareto_memory),
        fmt.size(_whole(cost["predicted_bytes"])),
        _mark(step_time(cost["seconds_per_step"]), line.pareto_time),
        fmt.duration(cost["seconds"]),
        fmt.count(_whole(cost["trained_parameters"])),
        fmt.size(_whole(cost["adapter_bytes"])),
        energy(cost["joules"]),
    ]


def _mark(text: str, on_front: bool) -> str:
    """Mark Pareto-optimal values in front, so that numbers stay aligned."""
    return f"* {text}" if on_front else text


def notes(table: ComparisonTable, options: Compare) -> str:
    """The explanation below a table."""
    better = "lower" if table.objective.lower else "higher"
    over = f"{fmt.listing(options.over)}, and seeds" if options.over else "seeds"
    parts = [
        f"{table.objective.name}, {better} is better: mean and standard deviation over {over}.",
        covers(table, options),
    ]
    if table.comparisons:
        waiting = len(table.planned) - table.comparisons
        hold = "interval holds"
        if table.comparisons > 1 or waiting > 0:
            others = f", and those of {pluralize(waiting, 'method')} without a result,"
            hold = (
                f"{pluralize(table.comparisons, 'interval')}{others * (waiting > 0)} hold at once"
            )
        parts.append(
            f"Differences to {table.reference} are positive if the method is better; their {hold} "
            f"with a probability of at least {100 * options.level:g} %."
        )
    if table.coverage.reason:
        parts.append(f"No verdict: {table.coverage.reason}.")
    elif table.comparisons:
        parts.append(
            "Better, worse: the interval excludes zero. Not inferior: it lies above minus the "
            f"margin. Equivalent: it lies within the margins, {100 * options.margin:g} % of the "
            f"metric of {table.reference}."
        )
    return " ".join([*parts, "* Pareto-optimal in the mean metric and this cost."])


def covers(table: ComparisonTable, options: Compare) -> str:
    """What the intervals of a table cover, as a sentence."""
    seeds = any(len(line.runs) > 1 for line in table.lines)
    level = f"{100 * options.level:g} %"
    if options.over:
        return f"Intervals ({level}) are over {table.coverage.text}."
    if not table.coverage.text:
        return (
            f"Intervals ({level}) are over seeds only, on these test windows."
            if seeds
            else "One seed: there are no intervals."
        )
    pooled = (
        f"The {table.folds} folds ({fmt.listing(options.folds)}) are pooled. "
        if table.folds > 1
        else ""
    )
    runs = "seeds and " if seeds else ""
    only = "" if seeds else ", for these trained models only"
    return f"{pooled}Intervals ({level}) are over {runs}{table.coverage.text}{only}."


def other_metrics(table: ComparisonTable) -> list[str]:
    """Overall test metrics other than the main metric."""
    names = dict.fromkeys(name for line in table.lines for name in line.metrics)
    return [name for name in names if "/" not in name and name != table.objective.metric]


def as_markdown(
    tables: Sequence[ComparisonTable], combined: Sequence[CombinedTable], options: Compare
) -> str:
    """All tables as Markdown, each followed by its other metrics and regional gaps."""
    blocks = [
        f"## {combined_title(table)}\n\n{markdown_table(combined_cells(table))}\n\n"
        f"{combined_notes(table, options)}\n"
        for table in combined
    ]
    for table in tables:
        rows = markdown_table([header(table), *(cells(table, line) for line in table.lines)])
        blocks.append(f"## {table.title}\n\n{rows}\n\n{notes(table, options)}\n")
        if names := other_metrics(table):
            done = [(line.method, line.metrics) for line in table.lines if line.metrics]
            metrics = [
                [method, *(mean_std(each[name].mean, each[name].spread) for name in names)]
                for method, each in done
            ]
            head = ["method", *map(metric_name, names)]
            blocks.append(f"{markdown_table([head, *metrics])}\n")
        if any(line.gaps for line in table.lines):
            blocks.append(f"{_gaps(table)}\n")
    blocks.extend(_choices(tables, options))
    return "\n".join(blocks)


def choices(table: ComparisonTable) -> list[list[str]]:
    """What a search chose for each method: a header, and a row for each search of each method."""
    rows = [
        [
            line.method,
            f"{search['key']} {search['value']:g}",
            f"{search['score']:.3f}",
            ", ".join(
                f"{value:g} ({'failed' if score is None else f'{score:.3f}'})"
                for value, score in search["trials"]
            ),
        ]
        for line in table.lines
        for search in line.searches
    ]
    head = ["method", "chosen", f"validation {table.objective.name}", "trials"]
    return [head, *rows] if rows else []


def _choices(tables: Sequence[ComparisonTable], options: Compare) -> list[str]:
    """What was chosen before test data was read, and on which data."""
    before = [f"- {what}: {data}" for what, data in options.chosen.items()]
    blocks = ["\n".join(before) + "\n"] if before else []
    searched = [(table.title, rows) for table in tables if (rows := choices(table))]
    if searched:
        blocks.append(f"{CHOSEN_ON} {trials_note(tables)}\n")
    blocks.extend(f"### {title}\n\n{markdown_table(rows)}\n" for title, rows in searched)
    return ["## What was chosen, and on which data\n", *blocks] if blocks else []


def combined_title(table: CombinedTable) -> str:
    """The title of a combined table."""
    context = [f"{axis} {label}" for axis, label in table.context.items()]
    return ", ".join([f"over {len(table.recipes)} data sets", *context])


def combined_cells(table: CombinedTable) -> list[list[str]]:
    """The header and the rows of a combined table, formatted."""
    return [
        ["method", *table.recipes, f"mean difference to {table.reference}", "interval", "verdict"],
        *(
            [
                name,
                *map(percent, table.by_recipe[name]),
                percent(difference.mean),
                interval(difference.low, difference.high, each=percent),
                str(difference),
            ]
            for name, difference in table.differences.items()
        ),
    ]


def combined_notes(table: CombinedTable, options: Compare) -> str:
    """The explanation below a combined table."""
    incomplete = any(math.isnan(each) for row in table.by_recipe.values() for each in row)
    missing = (
        f" {fmt.DASH}: not compared there; the mean is over the other data sets."
        if incomplete
        else ""
    )
    return (
        f"Differences as shares of the metric of {table.reference}, positive if the method is "
        "better. The intervals treat data sets as draws from data like these, whatever their "
        f"precision, and hold at once with a probability of at least {100 * options.level:g} %."
        f"{missing}"
    )


def _gaps(table: ComparisonTable) -> str:
    """The gap to regions without training scenes, one region per row."""
    done = [line for line in table.lines if line.gaps]
    regions = dict.fromkeys(region for line in done for region in line.gaps)
    rows = [
        [
            region,
            *(gap_text(gap) if (gap := line.gaps.get(region)) else fmt.DASH for line in done),
        ]
        for region in regions
    ]
    header = ["region without training scenes", *(line.method for line in done)]
    title = f"{table.objective.name}: regions without training scenes minus regions with them"
    return f"{title}:\n\n{markdown_table([header, *rows])}"


def gap_text(gap: Estimate) -> str:
    """Format a gap with its interval, if known."""
    known = not math.isnan(gap.low)
    return signed(gap.mean) + (f" ({interval(gap.low, gap.high, signs=True)})" if known else "")


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A header and rows as a Markdown table."""
    first, *rest = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    rule = " | ".join("---" for _ in lines[0])
    return "\n".join(f"| {line} |" for line in (first, rule, *rest))


def as_latex(tables: Sequence[ComparisonTable], options: Compare) -> str:
    """All tables as LaTeX; requires the package booktabs."""
    blocks = []
    for table in tables:
        rows = [" & ".join(map(latex, row)) for row in [cells(table, line) for line in table.lines]]
        body = " \\\\\n".join(rows)
        caption = latex(f"{table.title}. {notes(table, options)}")
        blocks.append(
            "\\begin{table}\n\\centering\\small\n"
            f"\\begin{{tabular}}{{l{'r' * (len(COLUMNS) - 1)}}}\n\\toprule\n"
            f"{' & '.join(map(latex, header(table)))} \\\\\n\\midrule\n{body} \\\\\n\\bottomrule\n"
            f"\\end{{tabular}}\n\\caption{{{caption}}}\n\\end{{table}}\n"
        )
    return "\n".join(blocks)


def as_csv(tables: Sequence[ComparisonTable]) -> str:
    """All tables in one CSV, with unformatted numbers; unknown values are empty."""
    contexts = list(dict.fromkeys(axis for table in tables for axis in table.context))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    estimates = ("mean", "std", "low", "high")
    differences = ("difference", "difference_low", "difference_high")
    writer.writerow(
        [*contexts, "method", "runs", "failed", "metric", *estimates, "reference", *differences,
         "verdict", *COSTS, "frugal", "fast"]
    )  # fmt: skip
    for table in tables:
        for line in table.lines:
            estimate, difference = line.metrics.get(table.objective.metric), line.difference
            values = (
                [estimate.mean, estimate.spread, estimate.low, estimate.high]
                if estimate
                else [None] * 4
            )
            difference_values = (
                [difference.mean, difference.low, difference.high] if difference else [None] * 3
            )
            writer.writerow(
                [*(table.context.get(axis, "") for axis in contexts), line.method, len(line.runs),
                 len(line.errors), table.objective.metric, *map(csv_value, values), table.reference,
                 *map(csv_value, difference_values), str(difference) if difference else "",
                 *(csv_value(line.cost[cost]) for cost in COSTS), int(line.pareto_memory),
                 int(line.pareto_time)]
            )  # fmt: skip
    return buffer.getvalue()


def for_terminal(table: ComparisonTable) -> RichTable:
    """A rich table with the columns that fit a terminal."""
    from rich.table import Table as RichTable

    names, shown = header(table), [0, 2, 4, 6, 7, 9]
    rich_table = RichTable(title=table.title, title_justify="left", box=None, pad_edge=False)
    for i in shown:
        rich_table.add_column(
            names[i], justify="left" if i in (0, 6) else "right", no_wrap=i in (0, 7)
        )
    for line in table.lines:
        row = cells(table, line)
        row[6] = row[6].partition(":")[0]  # the notes give the reason
        row[2], row[9] = (text.replace(" ", "\N{NO-BREAK SPACE}") for text in (row[2], row[9]))
        rich_table.add_row(*(row[i].replace("[", r"\[") for i in shown))
    return rich_table


def mean_std(mean: float, spread: float) -> str:
    """Format a mean with its standard deviation, if known."""
    return number(mean) + ("" if math.isnan(spread) else f" ± {number(spread)}")


def interval(
    low: float, high: float, *, signs: bool = False, each: Callable[[float], str] | None = None
) -> str:
    """Format an interval."""
    if fmt.missing(low) or fmt.missing(high):
        return fmt.DASH
    each = each or (signed if signs else number)
    return f"{each(low)} to {each(high)}"


def signed(value: float) -> str:
    """Format a number with its sign."""
    return fmt.DASH if fmt.missing(value) else f"{'+' if value >= 0 else '−'}{number(abs(value))}"  # noqa: RUF001


def percent(share: float) -> str:
    """Format a share with its sign as a percentage."""
    if fmt.missing(share):
        return fmt.DASH
    return f"{'+' if share >= 0 else '−'}{100 * abs(share):.1f} %"  # noqa: RUF001


def number(value: float) -> str:
    """Format a number: three decimals below 10, else three digits."""
    if fmt.missing(value):
        return fmt.DASH
    return (f"{value:.3f}" if abs(value) < 10 else fmt.number(value)).replace("-", "−")  # noqa: RUF001


def step_time(seconds: float | None) -> str:
    """Format the time of a step."""
    if seconds is None:
        return fmt.DASH
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def energy(joules: float | None) -> str:
    """Format an energy in watt-hours."""
    return fmt.DASH if joules is None else f"{joules / 3600:.2g} Wh"


def csv_value(value: float | None) -> float | str:
    """A number for a CSV; empty if unknown."""
    return "" if value is None or math.isnan(value) else value


def latex(text: str) -> str:
    """Escape text for LaTeX."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "±": r"$\pm$", "–": "--", "−": r"$-$", "\N{NO-BREAK SPACE}": "~", "*": r"$^*$",  # noqa: RUF001
        "\N{NARROW NO-BREAK SPACE}": r"\,",
    }  # fmt: skip
    return "".join(special.get(c, c) for c in text)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
