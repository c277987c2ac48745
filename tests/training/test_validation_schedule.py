"""Validations of some epochs, or on some windows, and the time that a training takes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geotune.api.fitting import FitResult
from geotune.api.planning import plan, plan_to_dict
from geotune.config import TrainOptions, parse_recipe
from geotune.training.checkpointer import Checkpointer
from geotune.training.run_dir import RunDir
from geotune.training.time_estimate import TimeEstimate

Train = Callable[..., FitResult]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_which_epochs_are_validated() -> None:
    options = TrainOptions(epochs=11, validate_every=4)
    assert [e + 1 for e in range(11) if options.validates(e)] == [1, 4, 8, 11]
    assert all(map(TrainOptions(epochs=3).validates, range(3)))


def test_rarer_validations_change_no_weights_and_resume(
    train: Train, cut_off: Callable[..., None], tmp_path: Path
) -> None:
    changes = {"train.epochs": 5, "train.schedule": "plateau"}
    train(tmp_path / "every", changes)
    rare = {**changes, "train.validate_every": 3}
    train(tmp_path / "rare", rare)
    validated = [row["epoch"] for row in rows(tmp_path / "rare") if row["val/miou"]]
    assert validated == ["1.0", "3.0", "5.0"]
    for row, full in zip(rows(tmp_path / "rare"), rows(tmp_path / "every"), strict=True):
        assert row["train/loss"] == full["train/loss"]
        assert row["val/miou"] in ("", full["val/miou"])
    cut_off(tmp_path / "cut", rare, epoch=2)  # after an epoch without a validation
    train(tmp_path / "cut", rare)
    assert rows(tmp_path / "cut") == rows(tmp_path / "rare")
    for name in ("adapter.safetensors", "metrics.json"):
        one, other = (tmp_path / run / name for run in ("rare", "cut"))
        assert one.read_bytes() == other.read_bytes()


def test_patience_counts_epochs() -> None:
    def stops(values: dict[int, float], patience: int) -> bool:
        checkpointer = Checkpointer(RunDir(Path("run")), "val/miou", patience)
        checkpointer.history = [
            {"val/loss": 1.0, "val/miou": values[i]} if i in values else {}
            for i in range(max(values) + 1)
        ]
        assert checkpointer.best_epoch in values
        return checkpointer.stops_early()

    assert stops({0: 0.5, 2: 0.5, 5: 0.4}, patience=5)
    assert not stops({0: 0.5, 2: 0.6, 5: 0.4}, patience=4)


def test_some_validation_windows_choose_the_epoch_and_all_give_the_result(
    train: Train, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", {"train.epochs": 1})
    changes = {"train.epochs": 1, "train.validation_windows": 2}
    some = train(tmp_path / "some", changes)
    assert some.metrics == pytest.approx(whole.metrics)  # in other batches
    assert rows(tmp_path / "some")[0]["val/loss"] != rows(tmp_path / "whole")[0]["val/loss"]
    assert any("compared on 2 of 4 validation windows" in note for note in some.notes)


def test_progress_and_time_of_a_training(train: Train, tmp_path: Path) -> None:
    messages: list[str] = []
    seen: list[tuple[str, int, int, float | None]] = []

    def on_progress(phase: str, done: int, total: int, left: float | None = None) -> None:
        seen.append((phase, done, total, left))

    changes = {"train.epochs": 4, "train.validate_every": 2, "data.samples": 8}
    train(tmp_path / "run", changes, on_message=messages.append, on_progress=on_progress)
    [line] = [text for text in messages if text.startswith("time: ")]
    # measured after the second of four epochs of two steps
    assert re.search(r"time: 8 windows in 2 steps per epoch, \S+ s per step", line)
    assert re.search(r"4 windows per validation, .* s each of 2; 3 epochs in about", line)
    assert "until " in line
    steps = [item for item in seen if item[0] == "training"]
    assert [item[1:3] for item in steps] == [(i, 8) for i in range(9)] + [(1, 1)]
    assert steps[1][3] is None and steps[4][3] is not None and steps[8][3] is not None
    assert [item[1:3] for item in seen if item[0] == "validation"] == [(0, 1), (1, 1)] * 3
    epochs = [text for text in messages if text.startswith("epoch ")]
    assert ["validation" in text for text in epochs] == [True, True, False, True]
    assert {"opening files", "reading scenes", "building the model", "writing the report"} <= {
        item[0] for item in seen
    }


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_plan_measures_the_time(
    tiny_values: Callable[..., dict[str, Any]], tmp_path: Path, cache: str
) -> None:
    changes = {
        "train.run": str(tmp_path / "run"),
        "train.epochs": 6,
        "train.validate_every": 3,
        "data.samples": 10,
        "train.cache": cache,
        "train.cache_folder": str(tmp_path / "cache"),
    }
    result = plan(parse_recipe(tiny_values(changes)), time=True)
    estimate = result.time
    assert estimate is not None
    assert (estimate.windows, estimate.steps, estimate.val_windows) == (10, 3, 4)
    assert (estimate.epochs, estimate.validations) == (6, 3)
    assert 0 < estimate.seconds_per_step < 60 and 0 < estimate.seconds_per_validation < 60
    assert (estimate.cache_seconds > 0) == (cache == "disk")
    assert json.loads(json.dumps(plan_to_dict(result)))["time"]["seconds"] == estimate.seconds
    assert list(tmp_path.iterdir()) == []  # nothing is kept


def test_estimate_adds_up() -> None:
    estimate = TimeEstimate(10, 64, 8, 1.5, 20, 5, 4.0, cache_seconds=30.0)
    assert estimate.seconds == 10 * 8 * 1.5 + 5 * 4.0 + 30
    assert "10 epochs in about 2 min 50 s" in str(estimate)
