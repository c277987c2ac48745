"""Write history, best weights and a checkpoint after each epoch; early stopping."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from geotune.adapter_io import save_tensors
from geotune.training.run_dir import RunDir
from geotune.training.training_module import TrainingModule
from geotune.utils.atomic import sync_to_disk
from geotune.utils.code_hash import training_code

LOW_RATE = 0.1
"""Share of the highest learning rate below which a training counts as ended by its schedule."""


class Checkpointer(Callback):
    """Writes each file atomically after each epoch, the checkpoint last.

    Early stopping and the best epoch are computed from the history, which is part of the
    checkpoint, so a resumed training gives the same result as an uninterrupted one. Of epochs with
    an equal metric, the best has the lowest validation loss, and of those it is the last. Epochs
    without a validation have no metric; patience counts them.

    Args:
        run_dir: to write to.
        monitor: the metric that selects the best epoch, such as `val/miou`.
        lower_is_better: direction of the metric.
        stop: train no further epoch.
        patience: epochs without improvement before training stops; None disables early stopping.

    Attributes:
        history: one row per epoch.
        code: the versions of geotune's code that trained, see `training_code`: several if a run was
            resumed with another one.
    """

    def __init__(
        self,
        run_dir: RunDir,
        monitor: str,
        patience: int | None = None,
        *,
        lower_is_better: bool = False,
        stop: bool = False,
    ) -> None:
        self.run_dir = run_dir
        self.monitor = monitor
        self.patience = patience
        self.lower_is_better = lower_is_better
        self.stop = stop
        self.history: list[dict[str, float]] = []
        self.code = [training_code()]
        self._started = 0.0
        self._validated = False

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint."""
        return {"history": self.history, "code": self.code}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.history = state_dict["history"]
        self.code = [*dict.fromkeys([*state_dict.get("code", []), *self.code])]

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the best `monitor`, from 0; None before the first."""
        epochs = self._validated_epochs
        return max(epochs, key=lambda i: (*self._quality(self.history[i]), i), default=None)

    @property
    def _validated_epochs(self) -> list[int]:
        return [i for i, row in enumerate(self.history) if self.monitor in row]

    def tie_note(self, windows: int) -> str | None:
        """A note if several epochs share the best metric of a validation split of `windows`."""
        rows = [self.history[i] for i in self._validated_epochs]
        values = [self._quality(row)[0] for row in rows]
        ties = values.count(max(values))
        if all(math.isnan(row[self.monitor]) for row in rows):
            return (
                f"{self.monitor} is undefined in every epoch, because the {windows} validation "
                "windows hold nothing to measure it by; the epoch with the lowest validation loss "
                "was chosen"
            )
        if ties < 2:
            return None
        return (
            f"{ties} of {len(values)} epochs have the same {self.monitor}: {windows} validation "
            "windows are few to choose an epoch by; of these epochs, the one with the lowest "
            "validation loss was chosen"
        )

    def early_stop_note(self, epochs: int, schedule: str) -> str | None:
        """A note if `patience` ended a training of `epochs` while the learning rate was high."""
        done = len(self.history)
        if schedule != "cosine" or done >= epochs or not self.stops_early():
            return None
        share = self.history[-1]["lr"] / max(row["lr"] for row in self.history)
        if share < LOW_RATE:
            return None
        return (
            f"train.patience {self.patience} ended the training after epoch {done} of {epochs}, at "
            f"{share:.0%} of the highest learning rate; with train.schedule cosine, the epochs at "
            f"low rates are often the best: geotune fit {self.run_dir.path} train.patience=null "
            "trains them"
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if the interrupted run had met the stopping criterion, or for `stop`."""
        if self.stop:
            # the last epoch, if only its checkpoint is missing: the best weights may be of it
            for row in self.run_dir.read_history()[len(self.history) :]:
                self.history.append({name: x for name, x in row.items() if not math.isnan(x)})
            trainer.should_stop = True
        self._stop_early(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the timer."""
        self._started = time.perf_counter()
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record that the epoch has metrics of its own."""
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch."""
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if self._validated or not name.startswith("val/")  # those of an earlier epoch
        }
        optimizer: Any = pl_module.optimizers()
        row = {
            "epoch": float(trainer.current_epoch + 1),
            "step": float(trainer.global_step),
            **metrics,
            "lr": max(float(group["lr"]) for group in optimizer.param_groups),
            "seconds": time.perf_counter() - self._started,
        }
        self.history.append(row)
        for logger in trainer.loggers:  # which count steps from 0
            logger.log_metrics({"lr": row["lr"]}, step=trainer.global_step - 1)
        if self.best_epoch == len(self.history) - 1:
            assert isinstance(pl_module, TrainingModule)
            state = pl_module.adapter_tensors()  # called by all processes
            if trainer.is_global_zero:
                if (validation := pl_module.validation()) is not None:
                    validation.save(self.run_dir.best_validation, self.best_epoch)
                save_tensors(self.run_dir.best_weights, state)
        if trainer.is_global_zero:
            self.run_dir.write_history(self.history)
        last = self.run_dir.last_checkpoint
        incomplete = last.with_suffix(".part")
        trainer.save_checkpoint(incomplete)
        if trainer.is_global_zero:
            sync_to_disk(incomplete)
            if last.is_file():
                last.replace(self.run_dir.previous_checkpoint)
            incomplete.replace(last)
        self._stop_early(trainer)

    def _stop_early(self, trainer: Trainer) -> None:
        if self.stops_early():
            trainer.should_stop = True

    def stops_early(self) -> bool:
        """Whether the last epoch was validated, and no epoch of the last `patience` was better."""
        epochs = self._validated_epochs
        if self.patience is None or not epochs or epochs[-1] != len(self.history) - 1:
            return False
        values = {i: self._quality(self.history[i])[0] for i in epochs}
        best = max(epochs, key=lambda i: (values[i], -i))  # the first of equal ones
        return epochs[-1] - best >= self.patience

    def _quality(self, row: dict[str, float]) -> tuple[float, float]:
        """The metric and minus the validation loss, higher is better; minus infinity for NaN."""
        value = -row[self.monitor] if self.lower_is_better else row[self.monitor]
        loss = -row["val/loss"]
        return tuple(-math.inf if math.isnan(x) else x for x in (value, loss))  # type: ignore[return-value]
