"""Write history, best weights and a checkpoint after each epoch; early stopping."""

from __future__ import annotations

import csv
import io
import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from geotune.adapter_io import serialize_tensors
from geotune.training.run_dir import RunDir
from geotune.training.training_module import TrainingModule
from geotune.utils.atomic import write_atomically


class Checkpointer(Callback):
    """Writes each file atomically after each epoch, the checkpoint last.

    Early stopping reads the history, which is part of the checkpoint, so a resumed training stops
    at the same epoch as an uninterrupted one.

    Args:
        run_dir: to write to.
        monitor: the metric that selects the best epoch, such as `val/miou`.
        lower_is_better: direction of the metric.
        patience: epochs without improvement before training stops; None disables early stopping.

    Attributes:
        history: one row per epoch.
        best_epoch: epoch with the best `monitor`, from 0; None before the first.
    """

    def __init__(
        self,
        run_dir: RunDir,
        monitor: str,
        patience: int | None = None,
        *,
        lower_is_better: bool = False,
    ) -> None:
        self.run_dir = run_dir
        self.monitor = monitor
        self.patience = patience
        self.lower_is_better = lower_is_better
        self.history: list[dict[str, float]] = []
        self.best_epoch: int | None = None
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint."""
        return {"history": self.history, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.history = state_dict["history"]
        self.best_epoch = state_dict["best_epoch"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if the interrupted run had met the stopping criterion."""
        self._stop_early(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the timer."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        optimizer: Any = pl_module.optimizers()
        row = {
            "epoch": float(trainer.current_epoch + 1),
            "step": float(trainer.global_step),
            **metrics,
            "lr": max(float(group["lr"]) for group in optimizer.param_groups),
            "seconds": time.perf_counter() - self._started,
        }
        self.history.append(row)
        if self._is_best(row):
            self.best_epoch = trainer.current_epoch
            assert isinstance(pl_module, TrainingModule)
            state = pl_module.adapter_tensors()  # called by all processes
            if trainer.is_global_zero:
                write_atomically(self.run_dir.best_weights, serialize_tensors(state))
        if trainer.is_global_zero:
            write_atomically(self.run_dir.history, _as_csv(self.history).encode())
        incomplete = self.run_dir.last_checkpoint.with_suffix(".part")
        trainer.save_checkpoint(incomplete)
        if trainer.is_global_zero:
            incomplete.replace(self.run_dir.last_checkpoint)
        self._stop_early(trainer)

    def _stop_early(self, trainer: Trainer) -> None:
        if self.patience is None or self.best_epoch is None:
            return
        if len(self.history) - 1 - self.best_epoch >= self.patience:
            trainer.should_stop = True

    def _is_best(self, row: dict[str, float]) -> bool:
        if self.best_epoch is None:
            return True
        value, best = row[self.monitor], self.history[self.best_epoch][self.monitor]
        if math.isnan(value) or math.isnan(best):
            return not math.isnan(value)
        return value < best if self.lower_is_better else value > best


def _as_csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
