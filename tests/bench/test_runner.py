"""Runs of a suite: each once, in whatever order, and through failures."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geotune.api.fitting import fit
from geotune.api.testing import test as judge_run
from geotune.bench.grid import RunSpec, expand
from geotune.bench.hparam_search import Objective
from geotune.bench.local_executor import Job, JobResult
from geotune.bench.results import ROWS
from geotune.bench.runner import Execution
from geotune.bench.suite import Search, read_suite
from geotune.config import load_recipe
from helpers.errors import raises

Write = Callable[..., Path]


class Here:
    """Does work in this process."""

    def __init__(self, fails: str = "") -> None:
        self.done: list[Job] = []
        self.fails = fails
        self.stopped = False
        self._lock = threading.Lock()

    def run(self, work: Job) -> JobResult:
        with self._lock:  # training in two threads at once is no concern of these tests
            self.done.append(work)
            if self.fails and self.fails in work.run:
                return JobResult("the disk is full")
            fit(load_recipe(Path(work.path), work.overrides)[0], run=Path(work.run))
            if work.tests:
                judge_run(Path(work.run))
            return JobResult(joules=5.0)

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    for job in ("geotune.api.train_workflow", "geotune.report.page"):
        monkeypatch.setattr(f"{job}.write_report", lambda path, report: path.write_text("report"))


def execution(folder: Path, doer: Any, **more: Any) -> Execution:
    goals = {"tiny": Objective("miou", lower=False)}
    return replace(Execution(folder, doer, 1, goals, lambda *said: None), **more)


def cells_of(path: Path) -> list[RunSpec]:
    return expand(read_suite(path))[0]


@pytest.fixture
def two(suite: Write) -> list[RunSpec]:
    return cells_of(
        suite({"train.epochs": 1}, grid={"method.kind": ["est", "frozen"]}, baselines=None)
    )


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what a clock or the machine decides."""
    return [{k: v for k, v in row.items() if k not in ("cost", "run")} for row in rows]


def test_rows_have_the_keys_and_the_metrics_and_what_it_cost(
    two: list[RunSpec], tmp_path: Path
) -> None:
    rows = execution(tmp_path / "bench", Here()).run(two)
    written = [json.loads(line) for line in (tmp_path / "bench" / ROWS).read_text().splitlines()]
    assert written == json.loads(json.dumps(rows))
    row = rows[0]
    assert (row["recipe"], row["method.kind"], row["train.seed"]) == ("tiny", "est", 0)
    assert row["error"] is None and 0 < row["metrics"]["miou"] < 1 and "d" in row["regions"]
    cost = row["cost"]
    assert cost["predicted_bytes"] > 1e5 and cost["tensor_bytes"] > 1e5 and cost["joules"] == 5
    assert 0 < cost["seconds_per_step"] < cost["seconds"] and cost["adapter_bytes"] > 1000


def test_nothing_is_done_twice_and_lost_rows_come_again(two: list[RunSpec], tmp_path: Path) -> None:
    first = execution(tmp_path / "bench", Here()).run(two)
    again = Here()
    assert execution(tmp_path / "bench", again, workers=2).run(two) == first
    (tmp_path / "bench" / ROWS).unlink()
    rows = execution(tmp_path / "bench", again).run(two)
    assert not again.done
    assert plain(rows) == plain(first)
    assert rows[0]["cost"] == first[0]["cost"] | {"joules": None}  # no one measured it again


def test_a_run_that_fails_is_a_row_and_is_tried_again(two: list[RunSpec], tmp_path: Path) -> None:
    rows = execution(tmp_path / "bench", Here(fails="tiny/est")).run(two)
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert rows[0]["error"] == "the disk is full" and "metrics" not in rows[0]
    mended = Here()
    rows = execution(tmp_path / "bench", mended).run(two)
    assert [row["status"] for row in rows] == ["done", "done"] and len(mended.done) == 1


def test_stopping_ends_what_is_done_and_keeps_the_rows(two: list[RunSpec], tmp_path: Path) -> None:
    class Stops(Here):
        def run(self, work: Job) -> JobResult:
            if "frozen" in work.run:
                raise KeyboardInterrupt
            return super().run(work)

    doer = Stops()
    with pytest.raises(KeyboardInterrupt):
        execution(tmp_path / "bench", doer).run(two)
    assert doer.stopped
    [row] = (tmp_path / "bench" / ROWS).read_text().splitlines()
    assert json.loads(row)["status"] == "done"


SEARCH = Search(low=1e-4, high=1e-1, trials=4, epochs=1, seed=3)


def test_a_search_is_the_same_again_and_knows_no_test_data(
    two: list[RunSpec], tmp_path: Path
) -> None:
    doer = Here()
    rows = execution(tmp_path / "bench", doer, search=SEARCH).run(two)
    trials = [work for work in doer.done if not work.tests]
    assert len(trials) == 8 and len(doer.done) == 10
    for work in trials:
        run = Path(work.run)
        assert "test" not in json.loads((run / "metrics.json").read_text())
        assert not (run / "test_windows.npz").exists()
        assert load_recipe(run / "recipe.yaml")[0].train.epochs == 1
    found = rows[0]["search"]
    scores = [score for _, score in found["trials"]]
    assert found["score"] == max(scores) and len({value for value, _ in found["trials"]}) == 4
    assert rows[0]["train.lr"] == found["value"]
    run = tmp_path / "bench" / "runs" / rows[0]["run"]
    assert load_recipe(run / "recipe.yaml")[0].train.lr == found["value"]
    again = Here()
    assert execution(tmp_path / "bench", again, search=SEARCH).run(two) == rows
    assert not again.done


def test_a_search_goes_on_through_a_trial_that_fails(two: list[RunSpec], tmp_path: Path) -> None:
    rows = execution(tmp_path / "bench", Here(fails="tiny/est/0"), search=SEARCH).run(two[:1])
    assert [score is None for _, score in rows[0]["search"]["trials"]] == [True] + [False] * 3


def test_a_search_without_any_result_is_a_row_with_its_error(
    two: list[RunSpec], tmp_path: Path
) -> None:
    rows = execution(tmp_path / "bench", Here(fails="search/tiny"), search=SEARCH).run(two[:1])
    assert "no trial of the search for train.lr" in rows[0]["error"]
    assert "the disk is full" in rows[0]["error"]


def test_one_rate_for_all_weights_stays_one(suite: Write) -> None:
    from geotune.bench.hparam_search import with_best

    cells = {cell.method: cell for cell in cells_of(suite())}
    scratch = with_best(SEARCH, cells["unet_from_scratch"], 0.007).recipe.train
    assert scratch.lr == scratch.backbone_lr == 0.007
    assert with_best(SEARCH, cells["est"], 0.007).recipe.train.backbone_lr is None


def test_one_suite_at_a_time(suite: Write) -> None:
    from geotune.bench.run_suite import bench
    from geotune.training.lock import exclusive_lock

    path = suite(baselines=None)
    code = f"""
import subprocess, sys
from pathlib import Path
from geotune.training.lock import exclusive_lock
with exclusive_lock(Path({str(path.parent / "bench")!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    import subprocess
    import sys

    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with raises("run-in-use", file=path.parent / "bench"):
            bench(path)
        other.communicate("")
    with exclusive_lock(path.parent / "bench"):
        pass
