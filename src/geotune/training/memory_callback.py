"""Measure the peak tensor memory of one step during training."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from geotune.memory.tracker import MemoryTracker, TrackedPeak
from geotune.training.training_module import TrainingModule
from geotune.types import Batch


class StepMemoryCallback(Callback):
    """Tracks one step on a CPU: the first full batch for which the optimizer has its state.

    Args:
        full_batches: number of batches per epoch of the full size.

    Attributes:
        peak: None if no step was tracked.
    """

    def __init__(self, full_batches: int) -> None:
        self.full_batches = full_batches
        self.peak: TrackedPeak | None = None
        self._tracker: MemoryTracker | None = None
        self._steps_before: int | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Start tracking."""
        if self._steps_before is None:
            self._steps_before = trainer.global_step
        ready = trainer.global_step > self._steps_before
        if self.peak is None and ready and batch_idx < self.full_batches:
            assert isinstance(pl_module, TrainingModule)
            tensors = (batch.inputs, batch.targets)
            self._tracker = MemoryTracker(pl_module.model, trainer.optimizers[0], tensors)
            self._tracker.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop tracking."""
        if self._tracker is not None:
            tracker = self._tracker
            self.close()
            self.peak = tracker.peak

    def close(self) -> None:
        """Stop tracking, also after a failure."""
        if self._tracker is not None:
            tracker, self._tracker = self._tracker, None
            tracker.__exit__(None, None, None)
