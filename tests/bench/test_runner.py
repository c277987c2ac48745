"""Running suites: skipping finished runs, failures, searches."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geotune.api.fitting import fit
from geotune.api.testing import test as judge_run
from geotune.bench.grid import RunSpec, expand
from geotune.bench.hparam_search import Objective, search
from geotune.bench.local_executor import Job, JobResult
from geotune.bench.results import ROWS, read_rows
from geotune.bench.runner import Execution
from geotune.bench.suite import Search, read_suite
from geotune.config import load_recipe
from helpers.errors import raises

Write = Callable[..., Path]


class InProcessExecutor:
    """Runs jobs in this process."""

    def __init__(self, fails: str = "") -> None:
        self.done: list[Job] = []
        self.fails = fails
        self.stopped = False
        self._lock = threading.Lock()

    def run(self, job: Job) -> JobResult:
        with self._lock:  # one training at a time
            self.done.append(job)
            if self.fails and self.fails in job.run:
                return JobResult("the disk is full")
            fit(
                load_recipe(Path(job.path), job.overrides)[0],
                run=Path(job.run),
                estimate_memory=True,
            )
            if job.tests:
                judge_run(Path(job.run))
            return JobResult(joules=5.0)

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    for job in ("geotune.api.train_workflow", "geotune.report.page"):
        monkeypatch.setattr(f"{job}.write_report", lambda path, report: path.write_text("report"))


def execution(folder: Path, executor: Any, **more: Any) -> Execution:
    objectives = {"tiny": Objective("miou", lower=False)}
    return replace(Execution(folder, executor, 1, objectives, lambda *message: None), **more)


def specs_of(path: Path) -> list[RunSpec]:
    return expand(read_suite(path))[0]


@pytest.fixture
def two(suite: Write) -> list[RunSpec]:
    return specs_of(
        suite({"train.epochs": 1}, grid={"method.kind": ["est", "frozen"]}, baselines=None)
    )


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without values that depend on time or the machine."""
    return [{k: v for k, v in row.items() if k not in ("cost", "run")} for row in rows]


def test_rows_have_keys_metrics_and_costs(two: list[RunSpec], tmp_path: Path) -> None:
    rows = execution(tmp_path / "bench", InProcessExecutor()).run(two)
    written = [json.loads(line) for line in (tmp_path / "bench" / ROWS).read_text().splitlines()]
    assert written == json.loads(json.dumps(rows))
    row = rows[0]
    assert (row["recipe"], row["method.kind"], row["train.seed"]) == ("tiny", "est", 0)
    assert row["error"] is None and 0 < row["metrics"]["miou"] < 1 and "d" in row["regions"]
    cost = row["cost"]
    assert cost["predicted_bytes"] > 1e5 and cost["tensor_bytes"] > 1e5 and cost["joules"] == 5
    assert 0 < cost["seconds_per_step"] < cost["seconds"] and cost["adapter_bytes"] > 1000


def test_finished_runs_are_skipped_and_lost_rows_restored(
    two: list[RunSpec], tmp_path: Path
) -> None:
    first = execution(tmp_path / "bench", InProcessExecutor()).run(two)
    again = InProcessExecutor()
    assert execution(tmp_path / "bench", again, workers=2, earlier=first).run(two) == first
    (tmp_path / "bench" / ROWS).unlink()
    rows = execution(tmp_path / "bench", again).run(two)
    assert not again.done
    assert plain(rows) == plain(first)
    assert rows[0]["cost"] == first[0]["cost"] | {"joules": None}  # energy is not measured again


def test_failed_run_has_a_row_and_is_retried(two: list[RunSpec], tmp_path: Path) -> None:
    rows = execution(tmp_path / "bench", InProcessExecutor(fails="tiny/est")).run(two)
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert rows[0]["error"] == "the disk is full" and "metrics" not in rows[0]
    working = InProcessExecutor()
    rows = execution(tmp_path / "bench", working).run(two)
    assert [row["status"] for row in rows] == ["done", "done"] and len(working.done) == 1


def test_rows_of_other_runs_are_kept(two: list[RunSpec], tmp_path: Path) -> None:
    """As of an earlier command for some of the runs."""
    folder = tmp_path / "bench"
    [first] = execution(folder, InProcessExecutor()).run(two[:1])
    [second] = execution(folder, InProcessExecutor(), earlier=[first]).run(two[1:])
    assert [row["run"] for row in read_rows(folder / ROWS)] == [first["run"], second["run"]]


def test_rows_stay_until_new_ones_replace_them(two: list[RunSpec], tmp_path: Path) -> None:
    """So that an interrupted second start loses nothing, such as the energy of the first."""
    folder, executor = tmp_path / "bench", InProcessExecutor()
    rows = execution(folder, executor).run(two)
    seen: list[list[str]] = []
    names = lambda *_: seen.append([row["run"] for row in read_rows(folder / ROWS)])  # noqa: E731
    execution(folder, executor, earlier=rows, on_result=names).run(two)
    assert [sorted(each) for each in seen] == [sorted(row["run"] for row in rows)] * 2
    assert read_rows(folder / ROWS) == rows


def test_interrupt_stops_the_executor_and_keeps_rows(two: list[RunSpec], tmp_path: Path) -> None:
    class Stops(InProcessExecutor):
        def run(self, job: Job) -> JobResult:
            if "frozen" in job.run:
                raise KeyboardInterrupt
            return super().run(job)

    executor = Stops()
    with pytest.raises(KeyboardInterrupt):
        execution(tmp_path / "bench", executor).run(two)
    assert executor.stopped
    [row] = (tmp_path / "bench" / ROWS).read_text().splitlines()
    assert json.loads(row)["status"] == "done"


SEARCH = Search(low=1e-4, high=1e-1, trials=4, epochs=1, seed=3)


def test_search_is_reproducible_and_uses_no_test_data(two: list[RunSpec], tmp_path: Path) -> None:
    executor = InProcessExecutor()
    rows = execution(tmp_path / "bench", executor, searches={"tiny": SEARCH}).run(two)
    trials = [job for job in executor.done if not job.tests]
    assert len(trials) == 8 and len(executor.done) == 10
    for job in trials:
        run = Path(job.run)
        assert "test" not in json.loads((run / "metrics.json").read_text())
        assert not (run / "test_windows.npz").exists()
        assert load_recipe(run / "recipe.yaml")[0].train.epochs == 1
    result = rows[0]["search"]
    scores = [score for _, score in result["trials"]]
    assert result["score"] == max(scores) and len({value for value, _ in result["trials"]}) == 4
    assert rows[0]["train.lr"] == result["value"]
    run = tmp_path / "bench" / "runs" / rows[0]["run"]
    assert load_recipe(run / "recipe.yaml")[0].train.lr == result["value"]
    again = InProcessExecutor()
    repeated = execution(tmp_path / "bench", again, searches={"tiny": SEARCH}, earlier=rows)
    assert repeated.run(two) == rows
    assert not again.done


def test_search_tries_the_listed_values(two: list[RunSpec], tmp_path: Path) -> None:
    values = [3e-3, 1e-4, 1e-2]
    rows = execution(
        tmp_path / "bench", InProcessExecutor(), searches={"tiny": Search(values=values, epochs=1)}
    ).run(two)
    for row in rows:
        result = row["search"]
        assert [value for value, _ in result["trials"]] == values
        assert result["score"] == max(score for _, score in result["trials"])


@pytest.mark.parametrize("lower", [False, True])
def test_equal_scores_are_decided_by_the_validation_loss(
    two: list[RunSpec], tmp_path: Path, lower: bool
) -> None:
    """As where a rare class is not found in a short training, whatever the learning rate."""
    losses = {1e-4: [0.9, 0.4], 1e-3: [0.3, 0.5], 1e-2: [0.6, 0.6], 1e-1: [0.1]}

    def trial(spec: RunSpec, run: Path) -> JobResult:
        lr = spec.recipe.train.lr
        run.mkdir(parents=True)
        score = (-1 if not lower else 1) if lr == 1e-1 else 0
        (run / "metrics.json").write_text(json.dumps({"val": {"miou": score}}))
        rows = [f"{epoch},{loss}" for epoch, loss in enumerate(losses[lr], 1)]
        (run / "history.csv").write_text("\n".join(["epoch,val/loss", *rows]))
        return JobResult()

    options = Search(values=[*losses])
    found = search(options, two[0], Objective("miou", lower), tmp_path / "trials", trial)
    assert (found.value, found.score) == (1e-3, 0)
    assert math.copysign(1, found.score) == 1  # a metric is reported as it was


def test_search_survives_a_failed_trial(two: list[RunSpec], tmp_path: Path) -> None:
    rows = execution(
        tmp_path / "bench", InProcessExecutor(fails="tiny/est/0"), searches={"tiny": SEARCH}
    ).run(two[:1])
    assert [score is None for _, score in rows[0]["search"]["trials"]] == [True] + [False] * 3


def test_search_without_result_is_a_failed_row(two: list[RunSpec], tmp_path: Path) -> None:
    rows = execution(
        tmp_path / "bench", InProcessExecutor(fails="search/tiny"), searches={"tiny": SEARCH}
    ).run(two[:1])
    assert "search for train.lr" in rows[0]["error"]
    assert "the disk is full" in rows[0]["error"]


def test_equal_backbone_lr_stays_equal(suite: Write) -> None:
    from geotune.bench.hparam_search import with_best

    specs = {spec.method: spec for spec in specs_of(suite())}
    scratch = with_best(SEARCH, specs["unet_from_scratch"], 0.007).recipe.train
    assert scratch.lr == scratch.backbone_lr == 0.007
    assert with_best(SEARCH, specs["est"], 0.007).recipe.train.backbone_lr is None


def test_suite_folder_is_locked(suite: Write) -> None:
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
        said: list[str] = []
        with raises("run-in-use", file=path.parent / "bench"):
            bench(path, on_message=said.append)
        assert any(f" in {path.parent / 'bench' / 'runs'}" in text for text in said)
        other.communicate("")
    with exclusive_lock(path.parent / "bench"):
        pass
