"""Published results beside those of a suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geotune.bench.external_results import ExternalResult
from geotune.bench.grid import RunSpec, expand
from geotune.bench.hparam_search import Objective
from geotune.bench.published_tables import as_markdown, published_tables
from geotune.bench.results import Row
from geotune.bench.suite import read_suite

Write = Callable[..., Path]
OBJECTIVES = {"tiny": Objective("miou", lower=False)}
PAPER = [
    ExternalResult("tiny", "full", 0.5, 0.01, "a paper", {"model": "small"}),
    ExternalResult("tiny", "est", 0.6, None, "a paper", {"model": "small"}),
    ExternalResult("tiny", "full", 0.7, None, "a paper", {"model": "large"}),
    ExternalResult("tiny", "lora", 0.8, None, "a paper", {"model": "small"}),
    ExternalResult("other", "full", 0.9, None, "a paper", {"model": "small"}),
]


@pytest.fixture
def specs(suite: Write) -> list[RunSpec]:
    models = {"small": {"train.batch_size": 2}, "large": {"train.batch_size": 8}}
    grid = {"method.kind": ["full", "est"], "model": models}
    return expand(read_suite(suite(grid=grid, seeds=[0, 1], baselines=None)))[0]


def row(value: float | None, error: str | None = None) -> Row:
    return {"error": error} if error else {"error": None, "metrics": {"miou": value}, "gap": None}


def test_a_line_per_method_and_label_with_our_mean_beside_it(
    specs: list[RunSpec], tmp_path: Path
) -> None:
    rows: list[Row | None] = [row(0.4), row(0.6), row(None, "failed"), None]
    rows += [row(0.3), None, None, None]
    [table] = published_tables(specs, rows, OBJECTIVES, PAPER, tmp_path)
    assert table.columns == ["model", "method", "tiny", "tiny, here"]
    assert table.lines == [
        ["small", "full", "0.500 ± 0.010", "0.500 ± 0.141"],
        ["small", "est", "0.600", "0.300"],
        ["large", "full", "0.700", "–"],
    ]
    assert "| small | est | 0.600 | 0.300 |" in as_markdown([table])


def test_labels_that_the_publication_lacks_are_shown_apart(
    specs: list[RunSpec], tmp_path: Path
) -> None:
    """A mean over them would be of no experiment; a run in several contexts counts once."""
    paper = [ExternalResult("tiny", "full", 0.5, None, "a paper")]
    rows: list[Row | None] = [row(0.4), row(0.6), row(0.8), row(1.0), None, None, None, None]
    [table] = published_tables(specs, rows, OBJECTIVES, paper, tmp_path)
    [[_, _, ours]] = table.lines
    full = [spec for spec in specs if spec.method == "full"]
    assert [spec.labels["model"] for spec in full] == ["small", "small", "large", "large"]
    means = {
        label: [
            each["metrics"]["miou"]
            for spec, each in zip(specs, rows, strict=True)
            if each and spec.method == "full" and spec.labels["model"] == label
        ]
        for label in ("small", "large")
    }
    assert ours == "; ".join(
        f"model {label}: {sum(values) / 2:.3f} ± 0.141" for label, values in means.items() if values
    )
    repeated = [*specs, *specs]
    [again] = published_tables(repeated, [*rows, *rows], OBJECTIVES, paper, tmp_path)
    assert again.lines == table.lines


def test_seeds_without_all_planned_folds_have_no_value(
    specs: list[RunSpec], tmp_path: Path
) -> None:
    """Half a cross-validation is no result, also if no seed has the other half."""
    paper = [ExternalResult("tiny", "full", 0.5, None, "a paper")]
    rows = [
        row(0.4) if spec.method == "full" and spec.labels["model"] == "small" else None
        for spec in specs
    ]
    [table] = published_tables(specs, rows, OBJECTIVES, paper, tmp_path, folds=("model",))
    assert table.lines[0][-1] == "–"


def test_part_of_the_test_split_is_computed_from_the_windows(
    suite: Write, geotune: Callable[..., Any], tmp_path: Path
) -> None:
    values = {"train.epochs": 1, "data.split.train": ["a"], "data.split.test": ["b", "d"]}
    path = suite(values, grid={"method.kind": ["frozen"]}, baselines=None)
    assert geotune("bench", path)[0] == 0
    from geotune.bench.results import read_rows

    specs, _ = expand(read_suite(path))
    [done] = read_rows(tmp_path / "bench/rows.jsonl")
    assert done["gap"]["unseen_regions"] == ["b", "d"]
    done["gap"]["unseen_regions"] = ["b"]
    paper = [
        ExternalResult("tiny", "frozen", 0.5, None, "a paper", regions=part)
        for part in ("seen", "unseen", "all")
    ]
    tables = published_tables(specs, [done], OBJECTIVES, paper, tmp_path / "bench")
    expected = [done["regions"]["d"], done["regions"]["b"], done["metrics"]]
    assert [table.lines[0][-1] for table in tables] == [f"{each['miou']:.3f}" for each in expected]
    assert [table.title for table in tables] == [
        "a paper, test regions seen in training",
        "a paper, test regions unseen in training",
        "a paper",
    ]
