"""What is kept after each epoch: history, the best tensors, a checkpoint to go on from."""

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
    """Writes after each epoch, each file whole or not at all; the checkpoint comes last.

    It also stops a training that no longer gets better: from the history, which is in the
    checkpoint, so that a training that goes on stops where an unbroken one does.

    Args:
        folder: of the run.
        monitor: the metric that decides, such as `val/miou`.
        lower_is_better: whether it shrinks as the model gets better.
        patience: epochs without a better one before it stops; None for never.

    Attributes:
        history: one row an epoch.
        best_epoch: the epoch with the best `monitor`, from 0; None before the first.
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
        """For the checkpoint."""
        return {"history": self.history, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.history = state_dict["history"]
        self.best_epoch = state_dict["best_epoch"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once where the training was cut off after its last epoch."""
        self._stop_if_done(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the time."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the epoch."""
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
        best = self._is_best(row)
        if best:
            self.best_epoch = trainer.current_epoch
        if best:
            assert isinstance(pl_module, TrainingModule)
            state = pl_module.adapter_tensors()
            if trainer.is_global_zero:
                write_atomically(self.run_dir.best_weights, serialize_tensors(state))
        if trainer.is_global_zero:
            write_atomically(self.run_dir.history, _as_csv(self.history).encode())
        unfinished = self.run_dir.last_checkpoint.with_suffix(".part")
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            unfinished.replace(self.run_dir.last_checkpoint)
        self._stop_if_done(trainer)

    def _stop_if_done(self, trainer: Trainer) -> None:
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
