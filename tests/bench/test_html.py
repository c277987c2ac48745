"""Tables, plots and the page of a comparison."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import math
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from geotune.bench.analysis import COSTS, ComparisonTable, MethodSummary
from geotune.bench.combined_tables import CombinedTable
from geotune.bench.comparison_tables import COLUMNS, as_csv, as_latex, as_markdown, cells, notes
from geotune.bench.external_results import ExternalResult
from geotune.bench.hparam_search import Objective
from geotune.bench.html import PageContext, render, summarize
from geotune.bench.measured_runs import Coverage
from geotune.bench.pareto_plots import pareto_plots, write_plots
from geotune.bench.statistics import Difference, Estimate
from geotune.bench.suite import Compare
from geotune.report.tasks.base import find_page

COST = dict.fromkeys(COSTS, None) | {
    "memory_bytes": 2e9,
    "seconds_per_step": 0.25,
    "trained_parameters": 1234,
}


COMBINED = CombinedTable(
    {"fraction": "0.1"},
    "full",
    ["ships", "clouds"],
    {"est": Difference(0.02, -0.1, 0.14, "no verdict", "only 2 data sets", 0.02)},
    {"est": [0.05, -0.01]},
)


def line(
    method: str, mean: float, difference: Difference | None = None, **more: object
) -> MethodSummary:
    values: dict[str, object] = {
        "method": method,
        "runs": [f"ships/{method}-0", f"ships/{method}-1"],
        "errors": [],
        "metrics": {
            "miou": Estimate(mean, 0.01, mean - 0.02, mean + 0.02, 2),
            "iou/sea & sky": Estimate(0.9, math.nan, 0.8, 0.95, 2),
        },
        "val": 0.7,
        "gaps": {"busan": Estimate(-0.123, 0.02, -0.2, -0.05, 2)},
        "regions": {
            "busan": Estimate(mean, 0.01, mean - 0.03, mean + 0.03, 2),
            "durban": Estimate(mean, 0.01, math.nan, math.nan, 2),
        },
        "difference": difference,
        "cost": COST,
        "searches": [],
    }
    return MethodSummary(**{**values, **more})  # type: ignore[arg-type]


@pytest.fixture
def table() -> ComparisonTable:
    return ComparisonTable(
        {"recipe": "ships", "fraction": "0.1"},
        Objective("miou", lower=False),
        "full",
        Coverage("40 test scenes", ""),
        2,
        [
            line("full", 0.6, pareto_memory=False),
            line("est", 0.62, Difference(0.02, 0.01, 0.03, "better"), pareto_memory=True,
                 pareto_time=True),
            line("<b>odd_1|x</b>", 0.5, Difference(-0.1, -0.2, -0.05, "worse")),
            line("none", 0.0, runs=[], errors=["ships/none-0: the disk is full"], metrics={},
                 cost=dict.fromkeys(COSTS)),
        ],
    )  # fmt: skip


def page_of(table: ComparisonTable) -> PageContext:
    metrics = [
        ExternalResult("ships", "full", 0.55, 0.01, "a paper"),
        ExternalResult("x", "est", 0.1, None, "y"),
    ]
    pages = {"ships": find_page("segment")}
    return PageContext(
        "harbours",
        [table],
        [COMBINED],
        [pareto_plots(table, 0)],
        Compare(),
        pages,
        [],
        metrics,
        ["a note"],
        "a CPU",
    )


def test_page_is_self_contained(table: ComparisonTable) -> None:
    html = render(page_of(table))
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", html)
    [script] = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"script-src &#39;sha256-{digest}&#39;" in html or f"script-src 'sha256-{digest}'" in html
    )
    assert "<b>odd" not in html and "&lt;b&gt;odd_1|x&lt;/b&gt;" in html


def test_navigation_lists_every_section(table: ComparisonTable) -> None:
    page = render(page_of(table))
    sections = re.findall(r'<section[^>]* id="([^"]+)"', page)
    assert "gaps" in sections
    assert re.findall(r'<a href="#([^"]+)"', page) == sections


def test_page_shows_errors_published_results_and_glossary(
    table: ComparisonTable,
) -> None:
    html = render(page_of(table))
    for text in (
        "the disk is full",
        "a paper",
        "0.550 ± 0.010",
        "a note",
        "busan",
        "sea &amp; sky",
    ):
        assert text in html, text
    assert "Intersection over union" in html  # the report's definition of IoU
    assert 'id="search"' not in html and 'id="others"' not in html
    assert 'data-verdict="better"' in html


def test_page_and_markdown_say_what_was_chosen(table: ComparisonTable) -> None:
    """With folds, a method has a search for each."""
    searches = [
        {"key": "train.lr", "value": 1e-3, "score": 0.5, "trials": [[1e-4, 0.25], [1e-3, 0.5]]},
        {"key": "train.lr", "value": 1e-4, "score": 0.75, "trials": [[1e-4, 0.75], [1e-3, None]]},
    ]
    lines = [replace(table.lines[0], searches=searches), *table.lines[1:]]
    table = replace(table, lines=lines)
    options = Compare(chosen={"the stem": "validation harbours"})
    markdown = as_markdown([table], [], options)
    html = render(replace(page_of(table), options=options))
    assert 'id="search"' in html
    for page in (markdown, html):
        assert "the stem" in page and "validation harbours" in page
        assert "train.lr 0.001" in page and "0.0001 (0.250), 0.001 (0.500)" in page
        assert "train.lr 0.0001" in page and "0.0001 (0.750), 0.001 (failed)" in page
    assert "was chosen" not in as_markdown([replace(table, lines=[])], [], Compare())


def test_summary_sentence(table: ComparisonTable) -> None:
    [message] = summarize(table, Compare())
    assert message == (
        "ships, fraction 0.1: of 3 methods, est has the best test mean IoU, 0.620 ± 0.010 (2 "
        "runs). Compared with full: better: est; worse: <b>odd_1|x</b>. Intervals (95 %) are over "
        "seeds and 40 test scenes. Pareto-optimal in mean IoU and memory: est. Regions "
        "without training scenes minus regions with: full "
        "\N{MINUS SIGN}0.123 (\N{MINUS SIGN}0.200 to \N{MINUS SIGN}0.050), est "
        "\N{MINUS SIGN}0.123 (\N{MINUS SIGN}0.200 to \N{MINUS SIGN}0.050)."
    )


def test_summary_of_one_run_says_that_its_spread_is_unknown(table: ComparisonTable) -> None:
    line = table.lines[1]
    metric = table.objective.metric
    one = replace(line.metrics[metric], runs=1)
    lines = [replace(line, metrics={**line.metrics, metric: one})]
    [message] = summarize(replace(table, lines=lines), Compare())
    assert "(1 run, so its spread is unknown)." in message


def test_reasons_without_verdict_are_grouped(table: ComparisonTable) -> None:
    reason = Difference(0.02, 0.01, 0.03, "no verdict", "one test scene")
    lines = [replace(each, difference=reason) for each in table.lines[1:3]]
    [message] = summarize(replace(table, lines=[table.lines[0], *lines]), Compare())
    assert "no verdict (one test scene): est and <b>odd_1|x</b>" in message


@pytest.mark.parametrize(
    ("runs", "text", "expected"),
    [
        (2, "40 test scenes", "Intervals (95 %) are over seeds and 40 test scenes."),
        (2, "", "Intervals (95 %) are over seeds only, on these test windows."),
        (1, "9 test regions", "Intervals (95 %) are over 9 test regions, for these trained models"),
        (1, "", "One seed: there are no intervals."),
    ],
)
def test_notes_state_what_intervals_cover(
    table: ComparisonTable, runs: int, text: str, expected: str
) -> None:
    lines = [replace(each, runs=each.runs[:runs]) for each in table.lines]
    table = replace(table, lines=lines, coverage=Coverage(text, ""))
    assert expected in notes(table, Compare())


def test_combined_tables_are_shown(table: ComparisonTable) -> None:
    minus = "\N{MINUS SIGN}"
    row = f"| est | +5.0 % | {minus}1.0 % | +2.0 % | {minus}10.0 % to +14.0 % | no verdict: only"
    markdown = as_markdown([table], [COMBINED], Compare())
    assert markdown.startswith("## over 2 data sets, fraction 0.1\n") and row in markdown
    html = render(page_of(table))
    assert "no verdict: only 2 data sets" in html
    summary = (
        "over 2 data sets, fraction 0.1, compared with full: no verdict (only 2 data sets): est."
    )
    assert summary in html


def test_lower_is_better_for_errors() -> None:
    lower = ComparisonTable(
        {"recipe": "trees"},
        Objective("miou", lower=True),
        "full",
        Coverage("", ""),
        1,
        [line("full", 0.6), line("est", 0.4)],
    )
    assert "est has the best" in summarize(lower, Compare())[0]


def test_tables_have_every_method_and_column(table: ComparisonTable) -> None:
    markdown = as_markdown([table], [], Compare())
    _, rows, _, title, gaps = markdown.strip().split("\n\n")
    assert title == "mean IoU: regions without training scenes minus regions with them:"
    assert "| busan | \N{MINUS SIGN}0.123 (\N{MINUS SIGN}0.200 to \N{MINUS SIGN}0.050) |" in gaps
    rows = rows.splitlines()
    assert len(rows) == 2 + len(table.lines)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == len(COLUMNS) + 1 for row in rows)
    latex = as_latex([table], Compare())
    assert latex.count(r" \\") == 1 + len(table.lines) and r"95 \%" in latex
    assert "odd\\_1|x" in latex and len(cells(table, table.lines[0])) == len(COLUMNS)


def test_other_metrics_are_shown(table: ComparisonTable) -> None:
    for each in table.lines[:3]:
        each.metrics["recall"] = Estimate(0.123, 0.004, 0.1, 0.2, 2)
    markdown = as_markdown([table], [], Compare())
    assert "| method | recall |" in markdown and "| est | 0.123 ± 0.004 |" in markdown
    html = render(page_of(table))
    assert 'id="others"' in html and "0.123" in html


def test_csv_has_unformatted_numbers(table: ComparisonTable) -> None:
    full, est, _, none = csv.DictReader(io.StringIO(as_csv([table])))
    assert (est["recipe"], est["fraction"], est["method"]) == ("ships", "0.1", "est")
    assert float(est["mean"]) == 0.62 and float(est["difference_low"]) == 0.01
    assert (est["verdict"], est["frugal"], full["difference"]) == ("better", "1", "")
    assert (none["mean"], none["failed"], none["memory_bytes"]) == ("", "1", "")
    assert float(est["memory_bytes"]) == 2e9 and est["joules"] == ""


def test_plots_have_alt_text_with_the_pareto_front(table: ComparisonTable) -> None:
    memory, time = pareto_plots(table, 0).values()
    assert "Pareto-optimal: est." in memory.words
    assert "<svg" in time.svg and "seconds per training step" in time.words


def test_plots_are_written_as_svg_files(table: ComparisonTable, tmp_path: Path) -> None:
    write_plots(tmp_path, [table], [pareto_plots(table, 0)])
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "ships-fraction-0.1-memory.svg",
        "ships-fraction-0.1-time.svg",
    ]
    for path in tmp_path.iterdir():
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.attrib["viewBox"]
        assert "currentColor" not in path.read_text()


def test_table_without_runs_has_no_plot(table: ComparisonTable) -> None:
    empty = replace(table, reference="none", comparisons=0, lines=[table.lines[-1]])
    assert pareto_plots(empty, 0) == {} and summarize(empty, Compare())[0].endswith(
        "no finished runs."
    )


CELL = r'<td(?: data-value="[^"]*")?>(.*?)</td>'


def blocks(page: PageContext, section: str) -> list[dict[str, Any]]:
    """The tables of a section of the page: title, columns, and the cells' texts by row."""
    [html] = re.findall(rf'<section id="{section}">(.*?)</section>', render(page), re.DOTALL)
    return [
        {
            "title": text(re.findall(r"<h3>(.*?)</h3>", block)[0]),
            "collapsed": "<details>" in block,
            "columns": [text(name) for name in re.findall(r"<th [^>]*>(.*?)</th>", block)][1:],
            "rows": {
                text(name): [text(cell) for cell in re.findall(CELL, row)]
                for row in re.findall(r"<tr.*?</tr>", block.partition("<tbody>")[2])
                for name in re.findall(r'<td class="name">(.*?)</td>', row)
            },
        }
        for block in html.split("<div data-recipe=")[1:]
    ]


def text(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", html.replace("<small>", " | ")))


def test_single_region_has_no_table(table: ComparisonTable) -> None:
    [block] = blocks(page_of(table), "regions")
    assert (
        block["columns"] == ["busan", "durban"]
        and block["title"] == "ships, fraction 0.1: mean IoU"
    )
    one = [replace(each, regions={"busan": each.regions["busan"]}) for each in table.lines[:2]]
    assert 'id="regions"' not in render(page_of(replace(table, lines=one)))


def test_gaps_have_intervals(table: ComparisonTable) -> None:
    [block] = blocks(page_of(table), "gaps")
    assert block["columns"] == ["busan"]
    minus = "\N{MINUS SIGN}"
    assert block["rows"]["full"] == [f"{minus}0.123 | {minus}0.200 to {minus}0.050"]
    assert '<td data-value="-0.123">' in render(page_of(table))


def test_many_regions_are_transposed(table: ComparisonTable) -> None:
    metrics = {f"region {i}": Estimate(0.1 * i, 0.01, math.nan, math.nan, 3) for i in range(20)}
    lines = [replace(table.lines[0], regions=metrics)]
    [block] = blocks(page_of(replace(table, lines=lines)), "regions")
    assert block["collapsed"] and block["columns"] == ["full"] and len(block["rows"]) == 20


def test_published_results_match_their_labels(table: ComparisonTable) -> None:
    published = [
        ExternalResult("ships", "full", 0.5, None, "a paper", {"backbone": "Clay"}),
        ExternalResult("ships", "est", 0.6, None, "a paper", {"backbone": "DeCUR"}),
    ]
    table = replace(table, context={"recipe": "ships", "backbone": "Clay"})
    [block] = blocks(replace(page_of(table), published=published), "published")
    assert block["rows"]["full"][0] == "0.500"
    assert block["rows"]["est"] == ["–", "0.620 ± 0.010"]
