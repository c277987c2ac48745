"""Progress of training on the terminal."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.progress import Progress, TaskID

from geotune.utils.progress import progress_bar


class TrainingProgress(Callback):
    """A line per epoch and, on a terminal, a bar over all steps."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None
        self.task: TaskID | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Show the bar, at the position of the checkpoint if training resumes."""
        if not trainer.is_global_zero:
            return
        batches = int(trainer.num_training_batches)
        self.progress = progress_bar(self.console)
        self.task = self.progress.add_task(
            "training", total=batches * (trainer.max_epochs or 0), note=""
        )
        self.progress.update(self.task, completed=batches * trainer.current_epoch)
        self.progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        if self.progress is not None and self.task is not None:
            self.progress.advance(self.task)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Print loss and metric of the epoch."""
        if self.progress is None:
            return
        metrics = trainer.callback_metrics
        note = f"loss {float(metrics['train/loss']):.4f}"
        monitor = pl_module.monitor
        note += f", validation {monitor} {float(metrics[f'val/{monitor}']):.4g}"
        self.console.print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {note}")

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Remove the bar; `teardown` is not called after an interrupt."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Remove the bar."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
