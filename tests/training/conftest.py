"""Train small recipes, and interrupt such trainings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from geotune.api.fitting import FitResult, fit
from geotune.config import parse_recipe
from geotune.utils.atomic import write_atomically


class CutOffError(BaseException):
    """Ends a training like a killed process: no handler writes anything."""


class CutOff(Callback):
    """Ends the training before batch `batch` of epoch `epoch`, both from 0."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.at = (epoch, batch)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == self.at:
            raise CutOffError


@pytest.fixture(autouse=True)
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the report, which takes as long as a tiny training and has its own tests."""
    monkeypatch.setattr("geotune.api.train_workflow.write_report", lambda path, report: plain(path))


def plain(path: Path) -> None:
    """Write a placeholder for the report."""
    write_atomically(path, b"report")


@pytest.fixture
def train(tiny_values: Callable[..., dict[str, Any]]) -> Callable[..., FitResult]:
    """Trains the tiny recipe with changes by key."""

    def run(run: Path, changes: dict[str, Any] | None = None, **options: Any) -> FitResult:
        return fit(parse_recipe(tiny_values(changes)), run=run, **options)

    return run


@pytest.fixture
def cut_off(train: Callable[..., FitResult]) -> Callable[..., None]:
    """Trains like `train`, and is interrupted before batch `batch` of epoch `epoch`."""

    def run(run: Path, changes: dict[str, Any] | None, epoch: int, batch: int = 1) -> None:
        with pytest.raises(CutOffError):
            train(run, changes, callbacks=lambda: [CutOff(epoch, batch)])

    return run
