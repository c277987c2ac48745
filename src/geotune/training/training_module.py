"""The one training loop's inner part: what a step is, for every method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer

from geotune.model import Model
from geotune.tasks.base import Task
from geotune.training.fsdp import full_state_dict, is_sharded, shard
from geotune.training.micro_batching import BatchNormStatistics, MicroBatcher
from geotune.training.optimizer import make_optimizer
from geotune.types import Batch

PLATEAU_EPOCHS = 5
PLATEAU_FACTOR = 0.5


class TrainingModule(LightningModule):
    """Loss, optimizer and schedule around a model.

    Every step draws its random numbers from `(seed, epoch, batch)` alone, so that a training that
    goes on from a checkpoint is the one that was never interrupted; and a step that ran out of
    memory is done again in smaller parts, as if it had been asked for so.

    Args:
        model: the network.
        task: loss and metrics.
        parts: in which a batch is computed.
        total_steps: optimizer steps of the whole training.
        monitor: the metric, such as `miou`, that the plateau schedule watches.
        most_val_batches: of validation in any process of the training.

    Attributes:
        loss: of the last step's batch.
    """

    loss: Tensor

    def __init__(
        self,
        model: Model,
        task: Task,
        micro_batcher: MicroBatcher,
        *,
        total_steps: int,
        monitor: str,
        lr: float,
        backbone_lr: float | None,
        weight_decay: float,
        schedule: Literal["cosine", "plateau", "constant"],
        warmup: float,
        seed: int,
        max_val_batches: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.micro_batcher = micro_batcher
        self._batch_size = 0  # windows of the batch that is computed ...
        self._micro_batch = slice(None)  # ... and which of them are now
        self.total_steps = total_steps
        self.monitor = monitor
        self.lr = lr
        self.backbone_lr = backbone_lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.warmup_steps = round(warmup * total_steps)
        self.seed = seed
        self.max_val_batches = max_val_batches
        self.scalar_names: frozenset[str] = frozenset()
        self.val_metrics = task.metrics()
        self.plateau = Plateau()

    def configure_model(self) -> None:
        """Part the model where the strategy has a mesh of processes to part it among."""
        if self.device_mesh is not None and not is_sharded(self.model):
            self.scalar_names = shard(self.model, self.device_mesh["data_parallel"])

    # ------------------------------------------------------------ steps
    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """See how large the batch is."""
        self._batch_size = len(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """What one part of the batch adds to its loss."""
        part = batch.select(self._micro_batch)
        loss = self.task.loss(self.model(**part.inputs, targets=part.targets), part.targets)
        return loss * (len(part) / len(batch))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Note the loss."""
        self.log(
            "train/loss",
            self.loss,
            on_epoch=True,
            on_step=False,
            sync_dist=True,
            batch_size=len(batch),
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch."""

        def attempt(parts: Sequence[slice]) -> list[tuple[Batch, Any]]:
            some = [batch.select(part) for part in parts]
            return [(part, self.model(**part.inputs, targets=part.targets)) for part in some]

        for part, outputs in self.micro_batcher.run(len(batch), attempt):
            self.val_metrics.update(outputs, part.targets)
            loss = self.task.loss(outputs, part.targets)
            self.log("val/loss", loss, on_epoch=True, sync_dist=True, batch_size=len(part))
        own = int(self.trainer.num_val_batches[0])
        if is_sharded(self.model) and batch_idx + 1 == own:
            for _ in range(own, self.max_val_batches):  # the others need this one's shares
                self.model(**batch.inputs, targets=batch.targets)

    def on_validation_epoch_end(self) -> None:
        """The metrics of the whole part."""
        metrics = self.val_metrics.compute()
        self.val_metrics.reset()
        for name, value in metrics.items():
            self.log(f"val/{name}", value)
        if self.schedule == "plateau":
            lower = self.monitor in self.task.lower_is_better
            self.plateau.step(-metrics[self.monitor] if lower else metrics[self.monitor])

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
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Compute the batch part after part, step, and let go of the gradients at once.

        `optimizer_closure` is a pass forward, by `training_step`, and back.
        """
        assert optimizer_closure is not None
        seed = hash((self.seed, epoch, batch_idx, self.global_rank))  # of ints, so alike anywhere

        def attempt(parts: Sequence[slice]) -> Tensor:
            torch.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
            statistics = BatchNormStatistics(self.model)
            losses = []
            try:
                for part in parts:
                    self._micro_batch = part
                    with self._gradient_sync(part is parts[-1]):
                        losses.append(optimizer_closure())
            except BaseException:
                self._drop_gradients()
                statistics.restore()
                raise
            return torch.stack(losses).sum()

        self.loss = self.micro_batcher.run(self._batch_size, attempt)
        super().optimizer_step(epoch, batch_idx, optimizer, lambda: self.loss)
        self._drop_gradients()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Nothing: gradients of a batch's parts add up, and are gone after the step."""

    def _drop_gradients(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def _gradient_sync(self, now: bool) -> AbstractContextManager[None]:
        """Whether processes add up their gradients in the pass back."""
        strategy = self.trainer.strategy
        if now or not isinstance(strategy, ParallelStrategy):
            return nullcontext()
        return strategy.block_backward_sync()

    def _lr_factor(self, step: int) -> float:
        """The share of the rate at an optimizer step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "cosine":
            span = max(1, self.total_steps - self.warmup_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - self.warmup_steps) / span)))
        return self.plateau.factor

    # ------------------------------------------------------------ checkpoints
    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        """What training changed; the frozen weights are on disk already."""
        return {f"model.{n}": t for n, t in full_state_dict(self.model).items()}

    def adapter_tensors(self) -> dict[str, Tensor]:
        """What the adapter holds, in the main process; every process has to call it."""
        state = full_state_dict(self.model)
        return {n: t.reshape(()) if n in self.scalar_names else t for n, t in state.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what else a training goes on from."""
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

    def step(self, value: float) -> None:
        """Take an epoch's metric, higher is better."""
        if value > self.best:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= PLATEAU_EPOCHS:
            self.factor, self.waited = self.factor * PLATEAU_FACTOR, 0
