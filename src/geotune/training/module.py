"""The one training loop's inner part: what a step is, for every method."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from geotune.adapter import adapter_state
from geotune.model import Model
from geotune.tasks.base import Task
from geotune.training.optimizer import make_optimizer
from geotune.types import Batch

PLATEAU_EPOCHS = 5
PLATEAU_FACTOR = 0.5


class Training(LightningModule):
    """Loss, optimizer and schedule around a model.

    Every step draws its random numbers from `(seed, epoch, batch)` alone, so that a training that
    goes on from a checkpoint is the one that was never interrupted.

    Args:
        model: the network.
        task: loss and metrics.
        total_steps: optimizer steps of the whole training.
        monitor: the metric, such as `miou`, that the plateau schedule watches.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        *,
        total_steps: int,
        monitor: str,
        lr: float,
        backbone_lr: float | None,
        weight_decay: float,
        schedule: Literal["cosine", "plateau", "constant"],
        warmup: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.total_steps = total_steps
        self.monitor = monitor
        self.lr = lr
        self.backbone_lr = backbone_lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.warmup_steps = round(warmup * total_steps)
        self.seed = seed
        self.val_metrics = task.metrics()
        self.plateau = Plateau()

    # ------------------------------------------------------------ steps
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step."""
        parts = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(hash(parts) & 0x7FFFFFFFFFFFFFFF)  # a tuple of ints hashes alike anywhere

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one (micro-)batch."""
        loss = self.task.loss(self.model(**batch.inputs, targets=batch.targets), batch.targets)
        self.log(
            "train/loss",
            loss.detach(),
            on_epoch=True,
            on_step=False,
            sync_dist=True,
            batch_size=len(batch.names),
        )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch."""
        outputs = self.model(**batch.inputs, targets=batch.targets)
        self.val_metrics.update(outputs, batch.targets)
        loss = self.task.loss(outputs, batch.targets)
        self.log("val/loss", loss, on_epoch=True, sync_dist=True, batch_size=len(batch.names))

    def on_validation_epoch_end(self) -> None:
        """The metrics of the whole part."""
        metrics = self.val_metrics.compute()
        self.val_metrics.reset()
        for name, value in metrics.items():
            self.log(f"val/{name}", value)
        if self.schedule == "plateau":
            lower = self.monitor in self.task.lower_is_better
            self.plateau.watch(-metrics[self.monitor] if lower else metrics[self.monitor])

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Tensors to the device, names as they are."""
        return batch.to(device)

    # ------------------------------------------------------------ optimizer
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """See `make_optimizer`."""
        optimizer = make_optimizer(
            self.model,
            lr=self.lr,
            backbone_lr=self.backbone_lr,
            weight_decay=self.weight_decay,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Step, and let go of the gradients at once: not after the next pass forward."""
        super().optimizer_step(*arguments, **named)
        for parameter in self.model.parameters():
            parameter.grad = None

    def _rate(self, step: int) -> float:
        """The share of the rate at an optimizer step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "cosine":
            span = max(1, self.total_steps - self.warmup_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - self.warmup_steps) / span)))
        return self.plateau.factor

    # ------------------------------------------------------------ checkpoints
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what training changed; the frozen weights are on disk already."""
        checkpoint["state_dict"] = {f"model.{n}": t for n, t in adapter_state(self.model).items()}
        checkpoint["plateau"] = vars(self.plateau).copy()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
        self.plateau = Plateau(**checkpoint["plateau"])


class Plateau:
    """Halves the rate when a metric has not grown for some epochs."""

    def __init__(self, best: float = -math.inf, waited: int = 0, factor: float = 1.0) -> None:
        self.best = best
        self.waited = waited
        self.factor = factor

    def watch(self, value: float) -> None:
        """Take an epoch's metric, higher is better."""
        if value > self.best:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= PLATEAU_EPOCHS:
            self.factor, self.waited = self.factor * PLATEAU_FACTOR, 0
