"""The tables of a comparison, for the terminal, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from geotune.bench.analysis import COSTS, ComparisonTable, MethodSummary
from geotune.bench.suite import Compare
from geotune.report import number_format as fmt

if TYPE_CHECKING:
    from rich.table import Table as Drawn

HEAD = (
    "method", "runs", "{metric}", "interval", "to {reference}", "interval of that", "verdict",
    "memory", "predicted", "time a step", "training", "trained", "adapter", "energy",
)  # fmt: skip


def head(table: ComparisonTable) -> list[str]:
    """The names of the columns."""
    return [name.format(metric=table.goal.metric, reference=table.reference) for name in HEAD]


def cells(table: ComparisonTable, line: MethodSummary) -> list[str]:
    """What stands in a method's line, as people read it."""
    figure, cost = line.figures.get(table.goal.metric), line.cost
    against = line.against
    return [
        line.method,
        str(len(line.runs)) + (f" ({len(line.errors)} failed)" if line.errors else ""),
        fmt.DASH if figure is None else with_spread(figure.mean, figure.spread),
        fmt.DASH if figure is None else between(figure.low, figure.high),
        fmt.DASH if against is None else signed(against.mean),
        fmt.DASH if against is None else between(against.low, against.high, signs=True),
        "reference" if line.method == table.reference else against.verdict if against else fmt.DASH,
        _starred(fmt.size(_whole(cost["memory_bytes"])), line.frugal),
        fmt.size(_whole(cost["predicted_bytes"])),
        _starred(step_time(cost["seconds_per_step"]), line.fast),
        fmt.duration(cost["seconds"]),
        fmt.count(_whole(cost["trained_parameters"])),
        fmt.size(_whole(cost["adapter_bytes"])),
        energy(cost["joules"]),
    ]


def _starred(text: str, marked: bool) -> str:
    """With the mark of the front before it, so that numbers stay in line."""
    return f"* {text}" if marked else text


def notes(table: ComparisonTable, how: Compare) -> str:
    """What a reader of the table has to know."""
    better = "lower" if table.goal.lower else "higher"
    over = f"{fmt.listing(how.over)}, and seeds" if how.over else "seeds"
    return (
        f"{table.goal.metric}, {better} is better: mean and standard deviation over {over}; "
        f"intervals of {100 * how.level:g} % over {over} and {table.units} {how.unit}s of the test "
        f"part. Differences to {table.reference} are positive where a method is better; the margin "
        f"is {100 * how.margin:g} % of its figure. * no other method is as good for less."
        + (
            " Of one seed an interval tells nothing of the chance in training."
            if all(len(line.runs) < 2 for line in table.lines)
            else ""
        )
    )


def others(table: ComparisonTable) -> list[str]:
    """The metrics of all of the test part beside the one that is judged by."""
    names = dict.fromkeys(name for line in table.lines for name in line.figures)
    return [name for name in names if "/" not in name and name != table.goal.metric]


def as_markdown(tables: Sequence[ComparisonTable], how: Compare) -> str:
    """All tables as Markdown, each with one of the other figures below it where there are any."""
    blocks = []
    for table in tables:
        rows = _markdown([head(table), *(cells(table, line) for line in table.lines)])
        blocks.append(f"## {table.title}\n\n{rows}\n\n{notes(table, how)}\n")
        if names := others(table):
            done = [(line.method, line.figures) for line in table.lines if line.figures]
            figures = [
                [method, *(with_spread(each[name].mean, each[name].spread) for name in names)]
                for method, each in done
            ]
            blocks.append(f"{_markdown([['method', *names], *figures])}\n")
        if any(line.gaps for line in table.lines):
            blocks.append(f"{_gaps(table)}\n")
    return "\n".join(blocks)


def _gaps(table: ComparisonTable) -> str:
    """What is lost in regions not seen, one a line; there may be many."""
    done = [line for line in table.lines if line.gaps]
    places = dict.fromkeys(place for line in done for place in line.gaps)
    rows = [
        [
            place,
            *(
                f"{signed(gap.mean)} ({between(gap.low, gap.high, signs=True)})"
                if (gap := line.gaps.get(place))
                else fmt.DASH
                for line in done
            ),
        ]
        for place in places
    ]
    head = ["not seen in training", *(line.method for line in done)]
    return f"{table.goal.metric} there, less that in seen regions:\n\n{_markdown([head, *rows])}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    first, *rest = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    rule = " | ".join("---" for _ in lines[0])
    return "\n".join(f"| {line} |" for line in (first, rule, *rest))


def as_latex(tables: Sequence[ComparisonTable], how: Compare) -> str:
    """All tables as LaTeX, for the package booktabs."""
    blocks = []
    for table in tables:
        rows = [" & ".join(map(latex, row)) for row in [cells(table, line) for line in table.lines]]
        body = " \\\\\n".join(rows)
        caption = latex(f"{table.title}. {notes(table, how)}")
        blocks.append(
            "\\begin{table}\n\\centering\\small\n"
            f"\\begin{{tabular}}{{l{'r' * (len(HEAD) - 1)}}}\n\\toprule\n"
            f"{' & '.join(map(latex, head(table)))} \\\\\n\\midrule\n{body} \\\\\n\\bottomrule\n"
            f"\\end{{tabular}}\n\\caption{{{caption}}}\n\\end{{table}}\n"
        )
    return "\n".join(blocks)


def as_csv(tables: Sequence[ComparisonTable]) -> str:
    """One CSV of all tables, with plain numbers; what is not known is empty."""
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
            figure, against = line.figures.get(table.goal.metric), line.against
            found = [figure.mean, figure.spread, figure.low, figure.high] if figure else [None] * 4
            apart = [against.mean, against.low, against.high] if against else [None] * 3
            writer.writerow(
                [*(table.context.get(axis, "") for axis in contexts), line.method, len(line.runs),
                 len(line.errors), table.goal.metric, *map(plain, found), table.reference,
                 *map(plain, apart), against.verdict if against else "",
                 *(plain(line.cost[cost]) for cost in COSTS), int(line.frugal), int(line.fast)]
            )  # fmt: skip
    return buffer.getvalue()


def for_terminal(table: ComparisonTable) -> Drawn:
    """A table for rich: what a terminal is wide enough for."""
    from rich.table import Table as Drawn

    names, shown = head(table), [0, 2, 4, 6, 7, 9]
    drawn = Drawn(title=table.title, title_justify="left", box=None, pad_edge=False)
    for i in shown:
        drawn.add_column(names[i], justify="left" if i in (0, 6) else "right", no_wrap=i in (0, 7))
    for line in table.lines:
        row = cells(table, line)
        row[2], row[9] = (text.replace(" ", "\N{NO-BREAK SPACE}") for text in (row[2], row[9]))
        drawn.add_row(*(row[i].replace("[", r"\[") for i in shown))
    return drawn


def with_spread(mean: float, spread: float) -> str:
    """A mean and, where there is one, its standard deviation."""
    return number(mean) + ("" if math.isnan(spread) else f" ± {number(spread)}")


def between(low: float, high: float, *, signs: bool = False) -> str:
    """An interval."""
    if fmt.missing(low) or fmt.missing(high):
        return fmt.DASH
    each = signed if signs else number
    return f"{each(low)} to {each(high)}"


def signed(value: float) -> str:
    """A number with its sign."""
    return fmt.DASH if fmt.missing(value) else f"{'+' if value >= 0 else '−'}{number(abs(value))}"  # noqa: RUF001


def number(value: float) -> str:
    """Three decimals below ten, three digits above."""
    if fmt.missing(value):
        return fmt.DASH
    return f"{value:.3f}" if abs(value) < 10 else fmt.number(value)


def step_time(seconds: float | None) -> str:
    """The time of a step."""
    if seconds is None:
        return fmt.DASH
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def energy(joules: float | None) -> str:
    """Energy as people measure it."""
    return fmt.DASH if joules is None else f"{joules / 3600:.2g} Wh"


def plain(value: float | None) -> float | str:
    """A number for a CSV; empty where there is none."""
    return "" if value is None or math.isnan(value) else value


def latex(text: str) -> str:
    """Text with what LaTeX reads as commands made plain."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "±": r"$\pm$", "–": "--", "−": r"$-$", "\N{NO-BREAK SPACE}": "~", "*": r"$^*$",  # noqa: RUF001
        "\N{NARROW NO-BREAK SPACE}": r"\,",
    }  # fmt: skip
    return "".join(special.get(c, c) for c in text)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
