"""Which epoch is the best, and when training stops early."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from geotune.config import TrainOptions
from geotune.training.checkpointer import Checkpointer
from geotune.training.lightning_trainer import make_trainer
from geotune.training.run_dir import RunDir
from helpers.memory import peak_growth


def checkpointer(
    values: list[float], losses: list[float] | None = None, **options: Any
) -> Checkpointer:
    result = Checkpointer(RunDir(Path("run")), "val/ap50", **options)
    losses = losses or [1.0] * len(values)
    result.history = [
        {"val/ap50": value, "val/loss": loss} for value, loss in zip(values, losses, strict=True)
    ]
    return result


@pytest.mark.parametrize(
    ("values", "losses", "best"),
    [
        ([], None, None),
        ([0.1, 0.5, 0.3], None, 1),
        ([0.1, 0.5, 0.5], [3.0, 1.0, 2.0], 1),  # ties: the lowest validation loss
        ([0.1, 0.5, 0.5], [3.0, 2.0, 1.0], 2),
        ([0.5, 0.5, 0.5], None, 2),  # then the last epoch
        ([0.5, 0.5, math.nan], None, 1),
        ([math.nan, math.nan], [2.0, 1.0], 1),
        ([math.nan, 0.0], [0.0, 9.0], 1),
        ([0.5, 0.5], [1.0, math.nan], 0),
    ],
)
def test_best_epoch(values: list[float], losses: list[float] | None, best: int | None) -> None:
    assert checkpointer(values, losses).best_epoch == best


def test_best_epoch_of_a_metric_that_decreases() -> None:
    assert checkpointer([3.0, 1.0, 2.0], lower_is_better=True).best_epoch == 1


def test_ties_do_not_count_as_improvement_for_early_stopping() -> None:
    trainer: Any = SimpleNamespace(should_stop=False)
    for values, stops in (([0.5, 0.5], False), ([0.5, 0.5, 0.5], True), ([0.5, 0.4, 0.6], False)):
        trainer.should_stop = False
        checkpointer(values, patience=2).on_train_start(trainer, None)  # type: ignore[arg-type]
        assert trainer.should_stop == stops


def test_note_if_validation_is_too_small_to_choose_an_epoch() -> None:
    assert checkpointer([0.1, 0.5, 0.3]).tie_note(9) is None
    note = checkpointer([0.1, 0.5, 0.5]).tie_note(9)
    assert note is not None and "2 of 3 epochs" in note and "9 validation windows" in note
    undefined = checkpointer([math.nan, math.nan]).tie_note(9)
    assert undefined is not None and "undefined" in undefined


def test_note_if_training_ends_at_a_high_learning_rate() -> None:
    stopped = checkpointer([0.5, 0.4, 0.3], patience=2)
    for row, rate in zip(stopped.history, (1e-3, 9e-4, 6e-4), strict=True):
        row["lr"] = rate
    note = stopped.early_stop_note(8, "cosine")
    assert note is not None and "after epoch 3 of 8, at 60% of the highest" in note
    assert "geotune fit run train.patience=null" in note
    assert stopped.early_stop_note(3, "cosine") is None  # all epochs were trained
    assert stopped.early_stop_note(8, "plateau") is None  # which lowers the rate first
    stopped.history[-1]["lr"] = 5e-5
    assert stopped.early_stop_note(8, "cosine") is None
    stopped.patience = 3
    assert stopped.early_stop_note(8, "cosine") is None  # interrupted, not stopped


def test_checkpoint_is_written_without_a_copy_in_memory(tmp_path: Path) -> None:
    options = TrainOptions(accelerator="cpu", devices=1, precision="32-true")
    writer = make_trainer(options, RunDir(tmp_path), []).strategy.checkpoint_io
    state = {f"{i}": torch.full((2**22,), float(i)) for i in range(4)}  # 16 MiB each
    assert peak_growth(lambda: writer.save_checkpoint(state, tmp_path / "last.ckpt")) < 8 * 2**20
    torch.testing.assert_close(torch.load(tmp_path / "last.ckpt"), state)
