"""`geotune bench` from the suite to its page, and what it refuses before the first run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geotune.bench.grid import expand
from geotune.bench.local_executor import JobResult
from geotune.bench.results import ROWS, row_of, write_rows
from geotune.bench.suite import read_suite

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
@pytest.mark.parametrize("seen", [False, True])
def test_a_suite_is_run_shown_and_shown_again(
    suite: Write, geotune: Command, tmp_path: Path, seen: bool
) -> None:
    """With regions of the test that were seen in training, too: then there is no gap to them."""
    path = suite(
        {"train.epochs": 1, **({"data.split.by": "()"} if seen else {})},
        grid={"method.kind": ["est", "full"]},
        baselines={"unet_from_scratch": False},
        compare={"draws": 50},
    )
    code, out, err = geotune("bench", path, "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [row["method.kind"] for row in rows] == ["est", "full", "frozen"]
    assert all(row["status"] == "done" for row in rows)
    assert all((row["gap"] is None) == seen for row in rows)
    folder = tmp_path / "bench"
    html = (folder / "bench.html").read_text()
    assert "Where methods differ" in html and "data:image/png" in html
    before = (folder / "table.csv").read_text()
    (folder / "table.csv").unlink()
    code, out, _ = geotune("bench", path, "--table-only")
    assert code == 0 and "bench.html" in out
    assert (folder / "table.csv").read_text() == before


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"recipes": {"tiny": {"path": "PATH", "metric": "mious"}}},
            "recipes.tiny.metric: 'mious' is no metric of task.kind segment; did you mean miou?",
        ),
        ({"compare": {"to": "ful"}}, "compare.to: 'ful' is no method of this suite"),
        (
            {"grid": {"method.kind": ["est", "full"]}, "compare": {"over": ["method.kind"]}},
            "compare.over: method.kind is what is compared; leave it out",
        ),
        (
            {"search": {"key": "train.lrr", "low": 1e-4, "high": 1e-2}},
            "train.lrr: unknown key; did you mean train.lr?",
        ),
        (
            {
                "published": [
                    {"file": "no.csv", "source": "x", "method": "m", "values": {"tiny": "v"}}
                ]
            },
            "no.csv: cannot be read as CSV",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    suite: Write, geotune: Command, tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    if "recipes" in keys:
        keys = {
            "recipes": {"tiny": {**keys["recipes"]["tiny"], "path": str(tmp_path / "recipe.yaml")}}
        }
    code, _, err = geotune("bench", suite(**keys))
    assert code == 1 and said in " ".join(err.split())
    assert not (tmp_path / "bench").exists()


def test_a_suite_with_a_run_that_failed_does_not_pass_for_done(
    suite: Write, geotune: Command, tmp_path: Path
) -> None:
    path = suite(baselines=None)
    [cell] = expand(read_suite(path))[0]
    row = row_of(cell, tmp_path, JobResult("the disk is full"), None)
    write_rows(tmp_path / "bench" / ROWS, [row])
    for options in ((), ("--json",)):
        code, out, err = geotune("bench", path, "--table-only", *options)
        assert code == 1
        assert f"1 of 1 runs failed, first {cell.name}: the disk is full" in " ".join(err.split())
        assert "bench" in out
    assert "the disk is full" in (tmp_path / "bench" / "bench.html").read_text()


def test_a_table_of_nothing_is_refused(suite: Write, geotune: Command) -> None:
    code, _, err = geotune("bench", suite(), "--table-only")
    assert code == 1 and "holds no row of this suite; run it without --table-only" in " ".join(
        err.split()
    )


def test_no_suite_is_one_line(geotune: Command, tmp_path: Path) -> None:
    code, _, err = geotune("bench", tmp_path / "none.yaml")
    assert code == 1 and "give a suite file" in err
