"""Finish an interrupted run, and continue a finished one with more epochs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from geotune.api.continuing import schedule_note
from geotune.api.fitting import FitResult, finish, fit
from geotune.config import TrainOptions, load_recipe
from geotune.factory.build_model import load_adapter
from geotune.training.run_dir import RunDir
from helpers.errors import raises

Train = Callable[..., FitResult]
CutOff = Callable[..., None]
CONSTANT = {"train.schedule": "constant", "train.warmup": 0.0}


class KilledError(BaseException):
    """Ends a training like a killed process."""


class KilledInFourthEpoch(Callback):
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch == 3:
            raise KilledError


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same(one: Path, other: Path) -> None:
    assert rows(one) == rows(other)
    for name in ("adapter.safetensors", "metrics.json", "examples.npz"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def epochs(run: Path) -> int:
    return int(json.loads((run / "run.json").read_text())["epochs"])


def test_a_finished_interrupted_run_is_that_of_its_epochs(
    train: Train, cut_off: CutOff, tmp_path: Path
) -> None:
    train(tmp_path / "two", {**CONSTANT, "train.epochs": 2})
    cut_off(tmp_path / "cut", {**CONSTANT, "train.epochs": 5}, epoch=2)
    result = finish(tmp_path / "cut")
    assert result.status == "finished" and epochs(tmp_path / "cut") == 2
    assert any("finished after 2 of 5 epochs" in note for note in result.notes)
    assert_same(tmp_path / "two", tmp_path / "cut")
    load_adapter(tmp_path / "cut")
    assert finish(tmp_path / "cut").status == "complete"


def test_a_run_that_was_finished_early_continues_where_it_stopped(
    train: Train, cut_off: CutOff, tmp_path: Path
) -> None:
    changes = {"train.epochs": 4, "train.warmup": 0.3}  # cosine
    train(tmp_path / "whole", changes)
    cut_off(tmp_path / "cut", changes, epoch=2)
    finish(tmp_path / "cut")
    result = fit(tmp_path / "cut", ["train.epochs=4"])
    assert result.status == "continued"
    assert any("continues as planned for 4 epochs" in note for note in result.notes)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_a_constant_rate_continues_as_if_all_epochs_were_planned(
    train: Train, tmp_path: Path
) -> None:
    train(tmp_path / "whole", {**CONSTANT, "train.epochs": 4})
    train(tmp_path / "run", {**CONSTANT, "train.epochs": 2})
    assert fit(tmp_path / "run").status == "complete"
    assert fit(tmp_path / "run", ["train.epochs=4"]).status == "continued"
    assert_same(tmp_path / "whole", tmp_path / "run")
    assert load_recipe(tmp_path / "run" / "recipe.yaml")[0].train.epochs == 4
    # the recipe's file with as many epochs finds it
    assert train(tmp_path / "run", {**CONSTANT, "train.epochs": 4}).status == "complete"


def test_a_cosine_goes_on_along_the_longer_one_and_resumes(train: Train, tmp_path: Path) -> None:
    for name in ("once", "cut"):
        train(tmp_path / name, {"train.epochs": 2, "train.warmup": 0.0})
    before = float(rows(tmp_path / "once")[-1]["lr"])
    fit(tmp_path / "once", ["train.epochs=4"])
    rates = [float(row["lr"]) for row in rows(tmp_path / "once")]
    assert before == rates[1] == 0.0 < rates[2]  # 0.5 to 0 of the peak
    assert rates[2] == pytest.approx(3e-3 * 0.5 * (1 + 2**-0.5 * -1), rel=1e-6)
    with pytest.raises(KilledError):
        fit(tmp_path / "cut", ["train.epochs=4"], callbacks=lambda: [KilledInFourthEpoch()])
    assert not (tmp_path / "cut" / "run.json").exists()
    assert fit(tmp_path / "cut").status == "resumed"
    assert_same(tmp_path / "once", tmp_path / "cut")


def test_the_best_epoch_may_be_one_from_before(train: Train, tmp_path: Path) -> None:
    changes = {**CONSTANT, "train.epochs": 2}
    first = train(tmp_path / "run", changes)
    (tmp_path / "run" / "test_windows.npz").write_bytes(b"of the old weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geotune.training.checkpointer.Checkpointer.best_epoch", 1)
        result = fit(tmp_path / "run", ["train.epochs=3"])
    assert result.metrics == first.metrics and result.summary["best_epoch"] == 2
    assert not (tmp_path / "run" / "test_windows.npz").exists()


def test_early_stopping_ends_a_continued_run_unless_patience_changes(
    train: Train, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(run, {"train.epochs": 4, "train.patience": 1, "train.lr": 1e-12})
    assert epochs(run) == 2
    fit(run, ["train.epochs=4"])
    assert epochs(run) == 2
    stopped = "train.patience 1 ended the training after epoch 2 of 4"
    notes = json.loads((run / "run.json").read_text())["notes"]
    assert any(stopped in note and "train.patience=null" in note for note in notes)
    fit(run, ["train.patience=null"])
    assert epochs(run) == 4
    notes = json.loads((run / "run.json").read_text())["notes"]
    assert not any(stopped in note for note in notes)


def test_a_run_that_was_killed_after_its_history_was_written_is_finished(
    train: Train, cut_off: CutOff, tmp_path: Path
) -> None:
    """The checkpoint of the second epoch, whose weights may be the best, is missing."""
    changes = {**CONSTANT, "train.epochs": 3}
    cut_off(tmp_path / "run", changes, epoch=2)
    folder = RunDir(tmp_path / "run")
    folder.previous_checkpoint.replace(folder.last_checkpoint)
    finish(tmp_path / "run")
    train(tmp_path / "two", {**CONSTANT, "train.epochs": 2})
    assert_same(tmp_path / "two", tmp_path / "run")


def test_bad_requests(train: Train, cut_off: CutOff, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "empty").mkdir()
    for command in (finish, fit):
        with raises("run-not-continued", file=tmp_path / "empty", mentions=["recipe.yaml"]):
            command(tmp_path / "empty")
    cut_off(run, {"train.epochs": 2}, epoch=0)
    with raises("run-not-continued", file=run, mentions=["no epoch is complete"]):
        finish(run)
    train(run, {"train.epochs": 2, "train.keep_checkpoint": False})
    assert not (run / "checkpoint").exists()
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for overrides, mentions in (
        (["train.epochs=1"], ["train.epochs=1", "2 are complete"]),
        (["train.epochs=9", "train.lr=1"], ["train.lr: 0.003 -> 1", "only train.epochs"]),
        (["train.epochs=9", "train.run=other"], ["train.run cannot change"]),
        (["train.epochs=9"], ["no checkpoint", "--overwrite"]),
    ):
        with raises("run-not-continued", key="train.epochs", file=run, mentions=mentions):
            fit(run, overrides)
    assert before == {path: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_the_schedule_is_told() -> None:
    def note(before: int = 20, **options: Any) -> str:
        return schedule_note(TrainOptions(epochs=40, **options), before, 20)

    assert "from 50% of its peak" in note(warmup=0) and "that of 20" in note()
    assert "as planned for 40 epochs" in note(before=40)
    assert "stays (train.schedule=constant)" in note(schedule="constant")
    assert "keeps its reductions" in note(schedule="plateau")
