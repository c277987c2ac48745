"""`geotune bench` end to end, and errors before the first run."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geotune.bench.grid import expand, folder_name
from geotune.bench.local_executor import JobResult, LocalExecutor
from geotune.bench.results import ROWS, RUNS, TRIALS, check_same_code, row_of, write_rows
from geotune.bench.suite import read_suite
from geotune.config import Recipe
from geotune.training.run_dir import RunDir

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
@pytest.mark.parametrize("seen", [False, True])
def test_suite_runs_and_table_only_reproduces_the_table(
    suite: Write, geotune: Command, tmp_path: Path, seen: bool
) -> None:
    """`seen`: all test regions have training scenes, so there is no gap."""
    methods = ["est"] if seen else ["est", "full"]
    path = suite(
        {"train.epochs": 1, **({"data.split.by": "()"} if seen else {})},
        grid={"method.kind": methods},
        baselines={"unet_from_scratch": False},
    )
    code, out, err = geotune("bench", path, "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [row["method.kind"] for row in rows] == [*methods, "frozen"]
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
    if not seen:
        check_packed_results(folder, tmp_path / "packed", path, geotune, before)


def check_packed_results(
    folder: Path, packed: Path, suite: Path, geotune: Command, table: str
) -> None:
    """Unpacked results, which have no weights, give the same table, and nothing is run again."""
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "pack_suite.py"))
    script["pack"](folder, packed)
    assert (packed / "bench.html").is_file() and not [*packed.rglob("*.safetensors")]
    shutil.rmtree(folder)
    script["unpack"](packed, folder)
    code, _, err = geotune("bench", suite)
    assert code == 0, err
    assert (folder / "table.csv").read_text() == table
    assert not [*folder.rglob("*.safetensors")]
    assert "data:image/png" not in (folder / "bench.html").read_text()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"recipes": {"tiny": {"path": "PATH", "metric": "mious"}}},
            "recipes.tiny.metric: 'mious' is not a metric of task.kind segment; did you mean miou?",
        ),
        ({"compare": {"to": "ful"}}, "compare.to: 'ful' is not a method of this suite"),
        ({"compare": {"primary": ["es"]}}, "compare.primary: 'es' is not a method of this suite"),
        (
            {"compare": {"primary": ["frozen"]}},
            "compare.primary: a verdict needs two or more seeds, found [0]",
        ),
        (
            {"grid": {"method.kind": ["est", "full"]}, "compare": {"over": ["method.kind"]}},
            "compare.over: method.kind is the compared axis; remove it from compare.over",
        ),
        (
            {"search": {"key": "train.lrr", "low": 1e-4, "high": 1e-2}},
            "train.lrr: unknown key; did you mean train.lr?",
        ),
        (
            {
                "set": {"data.split.allow_overlap": True},
                "search": {"key": "train.lr", "low": 1e-4, "high": 1e-2},
            },
            "scenes of the test split may be in the validation split",
        ),
        (
            {
                "published": [
                    {"file": "no.csv", "source": "x", "method": "m", "values": {"tiny": "v"}}
                ]
            },
            "no.csv: not a readable CSV file",
        ),
    ],
)
def test_invalid_suite_writes_nothing(
    suite: Write, geotune: Command, tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    if "recipes" in keys:
        keys = {
            "recipes": {"tiny": {**keys["recipes"]["tiny"], "path": str(tmp_path / "recipe.yaml")}}
        }
    code, _, err = geotune("bench", suite(**keys))
    assert code == 1 and message in " ".join(err.split())
    assert not (tmp_path / "bench").exists()


def test_failed_run_gives_exit_code_1(suite: Write, geotune: Command, tmp_path: Path) -> None:
    path = suite(baselines=None)
    [spec] = expand(read_suite(path))[0]
    row = row_of(spec, tmp_path, JobResult("the disk is full"), None)
    write_rows(tmp_path / "bench" / ROWS, [row])
    for options in ((), ("--json",)):
        code, out, err = geotune("bench", path, "--table-only", *options)
        assert code == 1
        assert f"1 of 1 runs failed, first {spec.name}: the disk is full" in " ".join(err.split())
        assert "bench" in out
    assert "the disk is full" in (tmp_path / "bench" / "bench.html").read_text()


def finished(run: Path, recipe: Recipe, code: str | None) -> None:
    """The files of a finished run that say which recipe and code it had."""
    RunDir(run).create(recipe)
    RunDir(run).write_json("run", {"code": code})


def test_runs_of_different_code_are_refused(
    suite: Write, geotune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the runs that are missing, and when existing rows are compared."""
    path = suite(baselines=None, seeds=[0, 1])
    folder, specs = tmp_path / "bench", expand(read_suite(path))[0]
    rows = [
        row_of(spec, tmp_path, JobResult("no"), None) | {"error": None, "code": code}
        for spec, code in zip(specs, ("aaa", None), strict=True)
    ]
    mentions = ["aaa: tiny/est-0", "compare.mixed_code"]
    write_rows(folder / ROWS, rows)
    code, _, err = geotune("bench", path, "--table-only")
    text = " ".join(err.split())
    assert code == 1 and all(each in text for each in [*mentions, "unknown code: tiny/est-1"])
    monkeypatch.setattr("geotune.bench.run_suite.training_code", lambda: "bbb")
    finished(folder / RUNS / "tiny/est-0", specs[0].recipe, "aaa")
    for found in (rows[:1], []):  # the folder decides, with or without its row
        write_rows(folder / ROWS, found)
        code, _, err = geotune("bench", path)
        text = " ".join(err.split())
        assert code == 1 and all(each in text for each in [*mentions, "bbb: installed now"])
    check_same_code({"tiny/est-0": "aaa"}, tmp_path, "aaa")


def test_trials_of_different_code_are_refused(
    suite: Write, geotune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only a trial is missing, as after a new value of the search."""
    path = suite(baselines=None, search={"key": "train.lr", "values": [1e-3, 1e-2]})
    folder, [spec] = tmp_path / "bench", expand(read_suite(path))[0]
    monkeypatch.setattr("geotune.bench.run_suite.training_code", lambda: "bbb")
    finished(folder / RUNS / spec.name, spec.recipe, "bbb")
    trials = folder / TRIALS / folder_name(spec.group)
    finished(trials / "0", spec.recipe, "aaa")
    code, _, err = geotune("bench", path)
    text = " ".join(err.split())
    assert code == 1 and "aaa: search/" in text and "bbb" in text


def test_results_of_another_recipe_are_refused(
    suite: Write, geotune: Command, tmp_path: Path
) -> None:
    """Known from the run's folder, or from its row alone."""
    grid = {"method.kind": ["est", "full"]}
    before = suite({"train.epochs": 3}, grid=grid, baselines=None)
    est, _ = expand(read_suite(before))[0]
    folder = tmp_path / "bench"
    row = row_of(est, tmp_path, JobResult("no"), None) | {"error": None, "code": "aaa"}
    write_rows(folder / ROWS, [row])
    path = suite({"train.epochs": 1}, grid=grid, baselines=None, set={"train.epochs": 5})
    row |= {"train.epochs": 3}
    write_rows(folder / ROWS, [row])
    for with_folder in (False, True):
        if with_folder:
            finished(folder / RUNS / est.name, est.recipe, "aaa")
        for options in (["--table-only"], ["--only", "tiny/full-*"]):
            code, _, err = geotune("bench", path, *options)
            text = " ".join(err.split())
            assert code == 1 and "tiny/est-0 was trained with another recipe" in text
            assert "train.epochs" in text and "3" in text and "5" in text


def test_a_damaged_line_of_the_results_is_named(
    suite: Write, geotune: Command, tmp_path: Path
) -> None:
    path, rows = suite(baselines=None), tmp_path / "bench" / ROWS
    [spec] = expand(read_suite(path))[0]
    write_rows(rows, [row_of(spec, tmp_path, JobResult("the disk is full"), None)])
    line = rows.read_text()
    rows.write_text(f"\n{line}\n")  # blank lines are none
    assert "the disk is full" in geotune("bench", path, "--table-only")[2]
    for damaged in (line[:50], "null", '{"run": "tiny/est-0"}'):
        rows.write_text(f"{line}{damaged}\n")
        for options in ((), ("--table-only",)):
            code, _, err = geotune("bench", path, *options)
            assert code == 1 and "line 2 is not the result of a run" in " ".join(err.split())
        assert rows.read_text() == f"{line}{damaged}\n"


def test_table_only_without_results_is_refused(suite: Write, geotune: Command) -> None:
    code, _, err = geotune("bench", suite(), "--table-only")
    assert code == 1 and "no results of this suite; run it without --table-only first" in " ".join(
        err.split()
    )


def test_missing_suite_is_refused(geotune: Command, tmp_path: Path) -> None:
    code, _, err = geotune("bench", tmp_path / "none.yaml")
    assert code == 1 and "none.yaml" in err and "suite file" in err


def test_a_folder_is_a_suite_and_only_selects_runs(
    suite: Write, geotune: Command, tmp_path: Path
) -> None:
    path = suite(grid={"method.kind": ["est", "full"]}, baselines=None)
    specs, _ = expand(read_suite(path))
    error = JobResult("stopped")
    rows = [row_of(spec, tmp_path, error, None) for spec in specs]
    write_rows(tmp_path / "bench" / ROWS, rows)
    code, out, _ = geotune(
        "bench", tmp_path, "--table-only", "--only", "tiny/e*", "tiny/est-*", "--json"
    )
    assert code == 1
    assert [row["run"] for row in json.loads(out)["rows"]] == ["tiny/est-0"]
    code, _, err = geotune("bench", path, "--only", "ships/*")
    assert code == 1 and "no run matches 'ships/*'; names are such as tiny/est-0" in err


def test_the_tables_have_the_runs_that_were_not_selected_too(
    suite: Write, geotune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = suite(
        grid={"method.kind": ["est", "full"]},
        baselines=None,
        seeds=[0, 1],
        compare={"to": "full", "primary": ["est"]},
    )
    specs, _ = expand(read_suite(path))
    earlier = [row_of(spec, tmp_path, JobResult("stopped"), None) for spec in specs[:2]]
    write_rows(tmp_path / "bench" / ROWS, earlier)
    monkeypatch.setattr(LocalExecutor, "run", lambda self, job: JobResult("out of memory"))
    code, out, _ = geotune("bench", path, "--only", "tiny/full-*", "--json")
    assert code == 1
    assert [(row["run"], row["error"]) for row in json.loads(out)["rows"]] == [
        ("tiny/est-0", "stopped"),
        ("tiny/est-1", "stopped"),
        ("tiny/full-0", "out of memory"),
        ("tiny/full-1", "out of memory"),
    ]
