"""Experiment trackers: MLflow on files, Weights & Biases as a module that records the calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import wandb as lightning_wandb

from geotune.api.fitting import FitResult, fit
from geotune.api.testing import test as test_run
from geotune.config import parse_recipe
from geotune.training import trackers
from geotune.training.run_dir import RunDir, changed_keys
from helpers.errors import raises

Train = Callable[..., FitResult]
WANDB = {"train.loggers": ["wandb"], "train.epochs": 2}


class FakeRun:
    """A run of Weights & Biases that keeps what it is given."""

    def __init__(self, **options: Any) -> None:
        self.id = options["id"] or "id1"
        self.url = None
        self.options = options
        self.rows: list[dict[str, float]] = []
        self.files: list[str] = []
        self.exit_code: int | None = None
        hparams: dict[str, Any] = {}
        self.config = SimpleNamespace(
            values=hparams, update=lambda values, allow_val_change: hparams.update(values)
        )

    def log(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def save(self, path: str, base_path: str, policy: str) -> None:
        self.files.append(Path(path).name)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """The runs that a fake `wandb` package is asked for."""
    runs: list[FakeRun] = []

    def init(**options: Any) -> FakeRun:
        runs.append(FakeRun(**options))
        return runs[-1]

    classes = {"RunDisabled": type("RunDisabled", (), {}), "Run": FakeRun}
    for name in ("wandb", "wandb.sdk", "wandb.sdk.lib", "wandb.wandb_run"):
        module: Any = ModuleType(name)
        module.__dict__.update(classes, init=init, run=None, Settings=SimpleNamespace)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(FakeRun, "define_metric", None, raising=False)
    monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", True)
    monkeypatch.setattr(trackers, "find_spec", lambda name: object() if name == "wandb" else None)
    return runs


def test_a_tracker_gets_recipe_epochs_results_and_report(
    train: Train, wandb: list[FakeRun], tmp_path: Path
) -> None:
    result = train(tmp_path / "run", WANDB)
    [run] = wandb
    assert (run.options["project"], run.options["name"]) == ("geotune", "run")
    assert run.config.values["train.lr"] == 3e-3 and run.config.values["method.kind"] == "est"
    history = RunDir(tmp_path / "run").read_history()
    logged = [row for row in run.rows if "val/miou" in row]
    assert [row["val/miou"] for row in logged] == [row["val/miou"] for row in history]
    assert [row["trainer/global_step"] for row in logged] == [row["step"] for row in history]
    assert [row["epoch"] for row in logged] == [row["epoch"] for row in history]
    assert [row["lr"] for row in run.rows if "lr" in row] == [row["lr"] for row in history]
    assert {f"best/{name}": value for name, value in result.metrics.items()}.items() <= (
        run.rows[-1].items()
    )
    assert run.rows[-1]["trainer/global_step"] == history[-1]["step"]
    assert run.files == ["report.html", "recipe.yaml", "metrics.json"]
    assert run.exit_code == 0
    assert not (tmp_path / "run/tensorboard").exists()


def test_a_resumed_run_continues_the_trackers_run_with_the_same_result(
    train: Train, cut_off: Callable[..., None], wandb: list[FakeRun], tmp_path: Path
) -> None:
    cut_off(tmp_path / "cut", WANDB, epoch=1)
    assert json.loads((tmp_path / "cut/trackers.json").read_text()) == {"wandb": {"run": "id1"}}
    train(tmp_path / "cut", WANDB)
    assert [run.options["id"] for run in wandb] == [None, "id1"]
    assert [run.exit_code for run in wandb] == [1, 0]
    steps = [row["trainer/global_step"] for run in wandb for row in run.rows if "val/loss" in row]
    assert steps == sorted(set(steps)) and len(steps) == 2
    train(tmp_path / "plain", {"train.epochs": 2})
    for name in ("adapter.safetensors", "metrics.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_tracker_that_fails_does_not_stop_the_training(
    train: Train, wandb: list[FakeRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log(run: FakeRun, row: dict[str, float]) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(FakeRun, "log", log)
    messages: list[str] = []
    result = train(tmp_path / "run", WANDB, on_message=messages.append)
    assert result.status == "trained" and len(wandb) == 1 and wandb[0].exit_code == 1
    [warning] = [text for text in messages if "wandb failed" in text]
    assert "no route" in warning and "history.csv" in warning


def test_a_tracker_that_cannot_start_is_an_error_before_training(
    train: Train, wandb: list[FakeRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("api_key not configured (no-tty)")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with raises("tracker-failed", key="train.loggers", mentions=["wandb", "api_key", "login"]):
        train(tmp_path / "run", WANDB)
    assert not (tmp_path / "run/recipe.yaml").exists()


def test_a_broken_installation_is_no_matter_of_the_server(
    train: Train, wandb: list[FakeRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        raise ModuleNotFoundError("No module named 'opentelemetry'")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with raises("dependency-missing", mentions=["opentelemetry", "geotune[wandb]"]):
        train(tmp_path / "run", WANDB)


def test_tensorboard_has_the_epochs_and_steps_of_the_history(train: Train, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path / "run", {"train.loggers": ["tensorboard"]})
    logged = events.EventAccumulator(str(tmp_path / "run/tensorboard"))
    logged.Reload()
    history = RunDir(tmp_path / "run").read_history()
    for name in ("epoch", "val/miou", "train/loss", "lr"):
        points = {point.step: point.value for point in logged.Scalars(name)}
        expected = {row["step"]: pytest.approx(row[name], rel=1e-5) for row in history}
        assert points == expected


def test_test_logs_to_the_run_of_the_training(
    train: Train, wandb: list[FakeRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "run", WANDB)
    monkeypatch.setattr("geotune.report.page.write_report", lambda *_: None)
    result = test_run(tmp_path / "run")
    assert wandb[1].options["id"] == "id1"
    assert wandb[1].rows[-1]["test/miou"] == result["metrics"]["miou"]
    # a machine without the tracker can test as well
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    messages: list[str] = []
    test_run(tmp_path / "run", on_message=messages.append)
    assert len(wandb) == 2 and any("wandb is not installed" in text for text in messages)


def test_a_missing_package_is_an_error_before_the_data_are_read(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    monkeypatch.setattr("geotune.api.fitting.build_data", lambda *_: pytest.fail("data was read"))
    command = "pip install 'geotune[mlflow]'"
    with raises("dependency-missing", key="train.loggers", mentions=[command]):
        train(tmp_path / "run", {"train.loggers": ["tensorboard", "mlflow"]})


def test_loggers_are_no_difference_between_recipes(tiny_values: Callable[..., Any]) -> None:
    loggers = ({}, {"train.loggers": ["wandb"]})
    recipes = [parse_recipe(tiny_values(changes)) for changes in loggers]
    assert changed_keys(*recipes) == []


def test_mlflow_continues_its_run_and_keeps_the_first_parameters(
    tiny_values: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="needs geotune[mlflow]")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    values = tiny_values({"train.loggers": ["mlflow", "csv"], "train.epochs": 1})
    first = fit(parse_recipe(values), run=tmp_path / "run")
    second = fit(tmp_path / "run", ["train.epochs=2"])
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    [experiment] = [e for e in client.search_experiments() if e.name == "geotune"]
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["train.epochs"] == "1" and run.data.params["method.kind"] == "est"
    values = [m.value for m in client.get_metric_history(run.info.run_id, "val/miou")]
    history = RunDir(tmp_path / "run").read_history()
    assert values == pytest.approx([row["val/miou"] for row in history])
    assert run.data.metrics["val/f1.water"] == pytest.approx(history[-1]["val/f1/water"])
    best = [m.value for m in client.get_metric_history(run.info.run_id, "best/miou")]
    assert best == pytest.approx([first.metrics["miou"], second.metrics["miou"]])
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"report.html", "recipe.yaml", "metrics.json"}


def test_wandb_itself_logs_offline(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs geotune[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tmp_path / "run", WANDB)
    [folder] = (tmp_path / "run/wandb").glob("offline-run-*")
    saved = json.loads((tmp_path / "run/trackers.json").read_text())
    assert folder.name.endswith(saved["wandb"]["run"])
