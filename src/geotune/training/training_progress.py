"""Progress of a training: bars with the remaining time, a line per epoch, and a time estimate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from geotune.config import TrainOptions
from geotune.training.evaluate import window_scores
from geotune.training.time_estimate import TimeEstimate, clock
from geotune.training.training_module import TrainingModule
from geotune.types import Batch, Sample
from geotune.utils.metric_names import metric_name
from geotune.utils.progress import OnProgress, ignore_progress

WARMUP_STEPS, MEASURED_STEPS = 2, 2
"""The first steps are slower: kernels are chosen, optimizer state is created, memory is tracked."""


@dataclass(frozen=True)
class StepTimes:
    """Measured seconds, reading included.

    Attributes:
        step: of a training step.
        val_window: of a validation window.
    """

    step: float
    val_window: float


class TrainingProgress(Callback):
    """Reports steps, validation windows, and each epoch with its metrics.

    Two steps after the first two are timed, and a validation batch; the remaining time of the
    training then includes the validations to come.

    Args:
        train: the options.
        windows: per epoch.
        val_loader: of the validation windows.
        on_progress: receives steps, and batches of a validation.
        on_message: receives a line per epoch, and the time estimate.
        on_measured: receives the times of the first steps.
    """

    def __init__(
        self,
        train: TrainOptions,
        windows: int,
        val_loader: DataLoader[Sample],
        on_progress: OnProgress = ignore_progress,
        on_message: Callable[[str], None] = lambda text: None,
        on_measured: Callable[[StepTimes], None] = lambda times: None,
    ) -> None:
        self.train = train
        self.windows = windows
        self.val_loader = val_loader
        self.on_progress = on_progress
        self.on_message = on_message
        self.on_measured = on_measured
        self.validated = False  # in this epoch
        self._step_seconds: list[float] = []
        self._val_seconds: float | None = None  # of a validation
        self._val_started = 0.0
        self._step_started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Show the bar, at the position of the checkpoint if training resumes."""
        self._report(trainer, 0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Time the first step from here."""
        self._step_started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar, and measure the first steps."""
        now = time.perf_counter()
        self._step_seconds.append(now - self._step_started)
        if len(self._step_seconds) == WARMUP_STEPS + MEASURED_STEPS:
            self._measure(trainer, pl_module, batch_idx + 1)
        self._report(trainer, batch_idx + 1)
        self._step_started = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Show the bar of the validation."""
        self._val_started = time.perf_counter()
        self._report_validation(trainer, 0)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance the bar of the validation."""
        self._report_validation(trainer, batch_idx + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Use its time for those to come."""
        self._val_seconds = time.perf_counter() - self._val_started
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Report loss and metric of the epoch."""
        metrics, monitor = trainer.callback_metrics, pl_module.monitor
        note = f"loss {float(metrics['train/loss']):.4f}"
        if self.validated:
            note += f", validation {metric_name(monitor)} {float(metrics[f'val/{monitor}']):.4g}"
        self.validated = False
        self.on_message(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {note}")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Remove the bar, also of a training that stopped early."""
        self.on_progress("training", 1, 1)

    def _report(self, trainer: Trainer, step: int) -> None:
        steps, epoch = int(trainer.num_training_batches), trainer.current_epoch
        left = None
        timed = self._step_seconds[WARMUP_STEPS:]
        if timed and self._val_seconds is not None:
            steps_left = (self.train.epochs - epoch) * steps - step
            left = steps_left * fmean(timed) + self._validations(epoch) * self._val_seconds
        self.on_progress("training", epoch * steps + step, self.train.epochs * steps, left)

    def _report_validation(self, trainer: Trainer, batches: int) -> None:
        self.on_progress("validation", batches, int(trainer.num_val_batches[0]))

    def _validations(self, epoch: int) -> int:
        """The number of validations from an epoch on."""
        return sum(map(self.train.validates, range(epoch, self.train.epochs)))

    def _measure(self, trainer: Trainer, module: TrainingModule, step: int) -> None:
        windows = len(self.val_loader.sampler)  # type: ignore[arg-type]
        times = StepTimes(
            fmean(self._step_seconds[WARMUP_STEPS:]), self._seconds_per_val_window(trainer, module)
        )
        self._val_seconds = windows * times.val_window
        self.on_measured(times)
        steps, epoch = int(trainer.num_training_batches), trainer.current_epoch
        estimate = TimeEstimate(
            epochs=self.train.epochs - epoch,
            windows=self.windows,
            steps=steps,
            seconds_per_step=times.step,
            val_windows=len(self.val_loader.dataset),  # type: ignore[arg-type]
            validations=self._validations(epoch),
            seconds_per_validation=self._val_seconds,
        )
        stops = ", unless it stops early" if self.train.patience else ""
        left = estimate.seconds - step * times.step
        self.on_message(f"time: {estimate}, until {clock(left)}{stops}")

    def _seconds_per_val_window(self, trainer: Trainer, module: TrainingModule) -> float:
        """Run two batches as a validation does, and time the second; changes no state."""
        training = {part: part.training for part in module.modules()}
        indices = list(self.val_loader.sampler)
        size = min(len(indices), self.val_loader.batch_size or 1)
        metrics = module.task.metrics().to(module.device)
        module.eval()
        seconds = 0.0
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            for start in (0, size):
                began = time.perf_counter()
                chosen = [indices[i % len(indices)] for i in range(start, start + size)]
                samples = [self.val_loader.dataset[i] for i in chosen]
                batch = Batch.from_samples(samples).to(module.device)
                for micro, outputs in module.evaluate(batch):
                    metrics.update(outputs, micro.targets)
                    window_scores(module.task, outputs, micro.targets)
                if module.device.type == "cuda":
                    torch.cuda.synchronize(module.device)
                seconds = time.perf_counter() - began
        for part, mode in training.items():
            part.training = mode
        return seconds / size
