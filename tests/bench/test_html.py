"""Tables, figures and the page of a comparison."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from geotune.bench.analysis import COSTS, ComparisonTable, MethodSummary, _cost
from geotune.bench.comparison_tables import HEAD, as_csv, as_latex, as_markdown, cells
from geotune.bench.external_results import ExternalResult
from geotune.bench.hparam_search import Objective
from geotune.bench.html import PageContext, _beside, _gaps, _regions, render, sentences
from geotune.bench.pareto_plots import fronts, write_figures
from geotune.bench.statistics import Difference, Estimate
from geotune.bench.suite import Compare
from geotune.report.tasks.base import find_page

COST = dict.fromkeys(COSTS, None) | {
    "memory_bytes": 2e9,
    "seconds_per_step": 0.25,
    "trained_parameters": 1234,
}


def line(
    method: str, mean: float, against: Difference | None = None, **more: object
) -> MethodSummary:
    values: dict[str, object] = {
        "method": method,
        "runs": [f"ships/{method}-0", f"ships/{method}-1"],
        "errors": [],
        "figures": {
            "miou": Estimate(mean, 0.01, mean - 0.02, mean + 0.02, 2),
            "iou/sea & sky": Estimate(0.9, math.nan, 0.8, 0.95, 2),
        },
        "val": 0.7,
        "gaps": {"busan": Estimate(-0.123, 0.02, -0.2, -0.05, 2)},
        "regions": {
            "busan": Estimate(mean, 0.01, mean - 0.03, mean + 0.03, 2),
            "durban": Estimate(mean, 0.01, math.nan, math.nan, 2),
        },
        "against": against,
        "cost": COST,
        "search": None,
    }
    return MethodSummary(**{**values, **more})  # type: ignore[arg-type]


@pytest.fixture
def table() -> ComparisonTable:
    return ComparisonTable(
        {"recipe": "ships", "fraction": "0.1"},
        Objective("miou", lower=False),
        "full",
        40,
        [
            line("full", 0.6, frugal=False),
            line("est", 0.62, Difference(0.02, 0.01, 0.03, "better"), frugal=True, fast=True),
            line("<b>odd_1|x</b>", 0.5, Difference(-0.1, -0.2, -0.05, "worse")),
            line("none", 0.0, runs=[], errors=["ships/none-0: the disk is full"], figures={},
                 cost=dict.fromkeys(COSTS)),
        ],
    )  # fmt: skip


def content(table: ComparisonTable) -> PageContext:
    figures = [
        ExternalResult("ships", "full", 0.55, 0.01, "a paper"),
        ExternalResult("x", "est", 0.1, None, "y"),
    ]
    pages = {"ships": find_page("segment")}
    return PageContext(
        "harbours", [table], [fronts(table, 0)], Compare(), pages, [], figures, ["a note"], "a CPU"
    )


def test_the_page_needs_no_network_and_runs_its_own_script_only(table: ComparisonTable) -> None:
    html = render(content(table))
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", html)
    [script] = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"script-src &#39;sha256-{digest}&#39;" in html or f"script-src 'sha256-{digest}'" in html
    )
    assert "<b>odd" not in html and "&lt;b&gt;odd_1|x&lt;/b&gt;" in html


def test_every_section_is_in_the_pages_list_of_them(table: ComparisonTable) -> None:
    page = render(content(table))
    sections = re.findall(r'<section[^>]* id="([^"]+)"', page)
    assert "gaps" in sections
    assert re.findall(r'<a href="#([^"]+)"', page) == sections


def test_the_page_tells_what_failed_what_others_found_and_what_words_mean(
    table: ComparisonTable,
) -> None:
    html = render(content(table))
    for text in (
        "the disk is full",
        "a paper",
        "0.550 ± 0.010",
        "a note",
        "busan",
        "sea &amp; sky",
    ):
        assert text in html, text
    assert "Overlap of the model" in html  # IoU, in the words of the report
    assert 'id="search"' not in html and 'id="others"' not in html
    assert 'data-verdict="better"' in html


def test_in_short_it_says_which_is_better_and_which_is_worse(table: ComparisonTable) -> None:
    [said] = sentences(table, Compare())
    assert said == (
        "ships, fraction 0.1: of 3 methods est has the best miou on test data, 0.620 ± 0.010 (from "
        "2 runs). Compared with full, better: est; worse: <b>odd_1|x</b>. No other method is as "
        "good in less memory than est. In regions not seen, beside those of the training: full "
        "\N{MINUS SIGN}0.123 (\N{MINUS SIGN}0.200 to \N{MINUS SIGN}0.050), est "
        "\N{MINUS SIGN}0.123 (\N{MINUS SIGN}0.200 to \N{MINUS SIGN}0.050)."
    )


def test_the_best_of_errors_is_the_least() -> None:
    lower = ComparisonTable(
        {"recipe": "trees"},
        Objective("miou", lower=True),
        "full",
        9,
        [line("full", 0.6), line("est", 0.4)],
    )
    assert "est has the best" in sentences(lower, Compare())[0]


def test_every_table_has_every_method_and_column(table: ComparisonTable) -> None:
    markdown = as_markdown([table], Compare())
    _, rows, _, said, lost = markdown.strip().split("\n\n")
    assert said == "miou there, less that in seen regions:"
    assert "| busan | \N{MINUS SIGN}0.123 (\N{MINUS SIGN}0.200 to \N{MINUS SIGN}0.050) |" in lost
    rows = rows.splitlines()
    assert len(rows) == 2 + len(table.lines)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == len(HEAD) + 1 for row in rows)
    latex = as_latex([table], Compare())
    assert latex.count(r" \\") == 1 + len(table.lines) and r"95 \%" in latex
    assert "odd\\_1|x" in latex and len(cells(table, table.lines[0])) == len(HEAD)


def test_metrics_that_are_not_judged_by_are_shown_too(table: ComparisonTable) -> None:
    for each in table.lines[:3]:
        each.figures["recall"] = Estimate(0.123, 0.004, 0.1, 0.2, 2)
    markdown = as_markdown([table], Compare())
    assert "| method | recall |" in markdown and "| est | 0.123 ± 0.004 |" in markdown
    html = render(content(table))
    assert 'id="others"' in html and "0.123" in html


def test_the_csv_has_plain_numbers(table: ComparisonTable) -> None:
    full, est, _, none = csv.DictReader(io.StringIO(as_csv([table])))
    assert (est["recipe"], est["fraction"], est["method"]) == ("ships", "0.1", "est")
    assert float(est["mean"]) == 0.62 and float(est["difference_low"]) == 0.01
    assert (est["verdict"], est["frugal"], full["difference"]) == ("better", "1", "")
    assert (none["mean"], none["failed"], none["memory_bytes"]) == ("", "1", "")
    assert float(est["memory_bytes"]) == 2e9 and est["joules"] == ""


def test_figures_say_in_words_who_is_on_the_front(table: ComparisonTable) -> None:
    memory, time = fronts(table, 0).values()
    assert "No other method is as good for less than: est." in memory.words
    assert "<svg" in time.svg and "seconds a training step" in time.words


def test_each_figure_is_a_file_of_its_own(table: ComparisonTable, tmp_path: Path) -> None:
    write_figures(tmp_path, [table], [fronts(table, 0)])
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "ships-fraction-0.1-memory.svg",
        "ships-fraction-0.1-time.svg",
    ]
    for path in tmp_path.iterdir():
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.attrib["viewBox"]
        assert "currentColor" not in path.read_text()


def test_a_table_without_any_run_has_no_figure(table: ComparisonTable) -> None:
    empty = ComparisonTable(table.context, table.goal, "none", 0, [table.lines[-1]])
    assert fronts(empty, 0) == {} and sentences(empty, Compare())[0].endswith("no run is done.")


def test_a_single_region_is_the_whole_test_part(table: ComparisonTable) -> None:
    [block] = _regions(table)
    assert block["columns"] == ["busan", "durban"] and block["title"] == "ships, fraction 0.1: miou"
    one = [replace(each, regions={"busan": each.regions["busan"]}) for each in table.lines[:2]]
    assert _regions(replace(table, lines=one)) == []


def test_what_is_lost_in_regions_not_seen_has_its_interval(table: ComparisonTable) -> None:
    [block] = _gaps(table)
    assert block["columns"] == ["busan"]
    minus = "\N{MINUS SIGN}"
    cell = (f"{minus}0.123", f"{minus}0.200 to {minus}0.050", -0.123)
    assert block["lines"][0] == ("full", [cell])


def test_many_regions_are_folded_with_a_line_each(table: ComparisonTable) -> None:
    figures = {f"region {i}": Estimate(0.1 * i, 0.01, math.nan, math.nan, 3) for i in range(20)}
    [block] = _regions(replace(table, lines=[replace(table.lines[0], regions=figures)]))
    assert block["many"] and block["columns"] == ["full"] and len(block["lines"]) == 20


def test_numbers_of_one_backbone_stand_beside_it_only(table: ComparisonTable) -> None:
    context = {"recipe": "ships", "backbone": "Clay"}
    figures = [
        ExternalResult("ships", "full", 0.5, None, "a paper", {"backbone": "Clay"}),
        ExternalResult("ships", "est", 0.6, None, "a paper", {"backbone": "DeCUR"}),
    ]
    [block] = _beside(replace(table, context=context), figures)
    assert dict((method, theirs) for method, theirs, _ in block["lines"])["full"] == "0.500"
    assert ("est", "–", "0.620 ± 0.010") in block["lines"]


def test_the_memory_of_a_process_does_not_pass_for_that_of_its_tensors() -> None:
    cost = {"tensor_bytes": None, "peak_bytes": 2e9, "memory_kind": "process memory"}
    assert _cost(cost, "memory_bytes") is None
    assert _cost(cost | {"tensor_bytes": 4e8}, "memory_bytes") == 4e8
    assert _cost(cost | {"memory_kind": "GPU memory"}, "memory_bytes") == 2e9
