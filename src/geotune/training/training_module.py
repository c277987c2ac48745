"""The Lightning module: training step, validation, optimizer and learning rate."""

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

from geotune.adapter_io import has_fixed_buffers
from geotune.data.window_datasets import GridWindowDataset
from geotune.detectors.assigner import sampling_seed
from geotune.errors import GeotuneError
from geotune.model import Model
from geotune.tasks.base import Task
from geotune.tasks.step_loss import MeanLoss, StepLoss
from geotune.training.distillation import Distillation
from geotune.training.evaluate import Evaluation, window_scores
from geotune.training.fsdp import full_state_dict, is_sharded, shard
from geotune.training.micro_batching import BatchNormStatistics, MicroBatcher
from geotune.training.optimizer import make_optimizer
from geotune.types import Batch
from geotune.utils.batch_norm import synchronize_batch_norm

MAX_SEED = 0x7FFFFFFFFFFFFFFF
PLATEAU_EPOCHS = 5
PLATEAU_FACTOR = 0.5
VAL_SAMPLING_SEED = 0
"""Of the proposals in the validation loss: equal in all epochs, runs and batch sizes."""


class TrainingModule(LightningModule):
    """Trains a model.

    The random numbers of a step depend only on `(seed, epoch, batch)`, so a resumed training is
    identical to an uninterrupted one. A step that runs out of memory is retried with smaller
    micro-batches, with the same result as if they had been requested.

    Args:
        model: the network.
        task: loss and metrics.
        micro_batcher: splits batches into micro-batches.
        total_steps: number of optimizer steps of the whole training.
        monitor: metric, such as `miou` or `loss`, for the plateau schedule.
        max_val_batches: the largest number of validation batches of any process.
        val_windows: the validation windows, if this process sees them all in every epoch: then
            `validation` gives the results of each of them.
        distillation: what the model learns from a teacher; validation does without it.

    Attributes:
        loss: of the last batch.
    """

    loss: Tensor
    _batch: Batch

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
        layer_decay: float = 1.0,
        decay_all: bool = False,
        schedule: Literal["cosine", "plateau", "constant"],
        warmup: float,
        seed: int,
        max_val_batches: int = 0,
        val_windows: GridWindowDataset | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.micro_batcher = micro_batcher
        self._step_loss: StepLoss | None = None  # of the current batch
        self._micro_batch = slice(None)  # the part of it that is being computed
        self.total_steps = total_steps
        self.monitor = monitor
        self.lr = lr
        self.backbone_lr = backbone_lr
        self.weight_decay = weight_decay
        self.layer_decay = layer_decay
        self.decay_all = decay_all
        self.schedule = schedule
        self.warmup_steps = round(warmup * total_steps)
        self.seed = seed
        self.max_val_batches = max_val_batches
        self.scalar_names: frozenset[str] = frozenset()
        self.val_windows = val_windows
        self.distillation = distillation
        self.val_scores: list[float] = []
        self.val_metrics = task.metrics()
        self.val_loss = MeanLoss(task)
        self.plateau = Plateau()
        self._total_changed = False

    def configure_model(self) -> None:
        """Synchronise batch norm, and shard the model if the strategy has a mesh of processes."""
        if self.trainer.world_size > 1 and self.trainer.strategy.root_device.type == "cuda":
            named = self.model.named_modules()
            fixed = {
                module for name, module in named if has_fixed_buffers(self.model, name, module)
            }
            synchronize_batch_norm(self.model, fixed)
        if self.device_mesh is not None and not is_sharded(self.model):
            self.scalar_names = shard(self.model, self.device_mesh["data_parallel"])

    # ------------------------------------------------------------ steps
    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Record the batch."""
        self._batch = batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The contribution of one micro-batch to the loss of the batch."""
        assert self._step_loss is not None
        micro = batch.select(self._micro_batch)
        if self.distillation is not None:
            return self._step_loss(self.distillation(self.model, micro), micro)
        outputs = self.model(**micro.inputs, targets=micro.targets)
        return self._step_loss(outputs, micro.targets)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the loss."""
        self.log(
            "train/loss",
            self.loss,
            on_epoch=True,
            on_step=False,
            sync_dist=True,
            batch_size=len(batch),
        )

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch."""
        self.val_metrics.reset()
        self.val_scores = []

    @sampling_seed(VAL_SAMPLING_SEED)
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update metrics and loss."""
        for micro, outputs in self.evaluate(batch):
            self.val_metrics.update(outputs, micro.targets)
            if self.val_windows is not None:
                self.val_scores += window_scores(self.task, outputs, micro.targets)
            self.val_loss.update(outputs, micro.targets)
        own_batches = int(self.trainer.num_val_batches[0])
        if is_sharded(self.model) and batch_idx + 1 == own_batches:
            for _ in range(own_batches, self.max_val_batches):  # others need these shards
                self.model(**batch.inputs, targets=batch.targets)

    def evaluate(self, batch: Batch) -> list[tuple[Batch, Any]]:
        """The micro-batches of a batch with their outputs, smaller ones if memory runs out."""

        def attempt(slices: Sequence[slice]) -> list[tuple[Batch, Any]]:
            micros = [batch.select(windows) for windows in slices]
            return [(micro, self.model(**micro.inputs, targets=micro.targets)) for micro in micros]

        return self.micro_batcher.run(len(batch), attempt, backward=False)

    def on_validation_epoch_end(self) -> None:
        """Log the loss and the metrics of the validation split."""
        metrics = {
            "loss": float(self.val_loss.compute(self.sum_processes)),
            **self.val_metrics.compute(),
        }
        for name, value in metrics.items():
            self.log(f"val/{name}", value)
        if self.schedule == "plateau":
            lower = lower_is_better(self.task, self.monitor)
            value = metrics[self.monitor]
            self.plateau.step(-value if lower else value, self.current_epoch + 1)

    def validation(self) -> Evaluation | None:
        """Results of the last epoch's validation; None without `val_windows`."""
        if self.val_windows is None:
            return None
        return Evaluation.from_metrics(
            self.task, self.val_metrics, self.val_scores, self.val_windows
        )

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move the tensors of the batch."""
        return batch.to(device)

    # ------------------------------------------------------------ optimizer
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """See `make_optimizer`."""
        optimizer = make_optimizer(
            self.model,
            lr=self.lr,
            backbone_lr=self.backbone_lr,
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
            decay_all=self.decay_all,
        )
        if self.distillation is not None and self.distillation.pairs:
            projections = list(self.distillation.parameters())
            optimizer.add_param_group(
                {"params": projections, "lr": self.lr, "weight_decay": self.weight_decay}
            )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_factor)
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
        """Compute the batch in micro-batches, step, and free the gradients at once.

        `optimizer_closure` runs `training_step` and its backward pass.
        """
        assert optimizer_closure is not None
        # of ints, so equal on all machines
        step_seed = hash((self.seed, epoch, batch_idx)) & MAX_SEED
        seed = hash((self.seed, epoch, batch_idx, self.global_rank)) & MAX_SEED
        world = self.trainer.world_size

        def attempt(slices: Sequence[slice]) -> Tensor:
            torch.manual_seed(seed)
            self._step_loss = self._new_step_loss(world)
            statistics = BatchNormStatistics(self.model)
            losses = []
            try:
                with sampling_seed(step_seed):
                    for windows in slices:
                        self._micro_batch = windows
                        with self._gradient_sync(enabled=windows is slices[-1]):
                            losses.append(optimizer_closure())
            except BaseException:
                self._drop_gradients()
                statistics.restore()
                raise
            return torch.stack(losses).sum()

        self.loss = self.micro_batcher.run(len(self._batch), attempt)
        super().optimizer_step(epoch, batch_idx, optimizer, lambda: self.loss)
        self._drop_gradients()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Do nothing: micro-batches accumulate gradients, which the step frees."""

    def _new_step_loss(self, world: int) -> StepLoss:
        """The loss of the current batch."""
        if self.distillation is not None:
            return StepLoss(self.distillation.loss, self._batch, self.sum_processes, world)
        return StepLoss(self.task, self._batch.targets, self.sum_processes, world)

    def sum_processes(self, values: Tensor) -> Tensor:
        """The sum over all processes, a collective call."""
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def _drop_gradients(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    def _gradient_sync(self, *, enabled: bool) -> AbstractContextManager[None]:
        """Context in which processes do or do not sum their gradients in the backward pass."""
        strategy = self.trainer.strategy
        if enabled or not isinstance(strategy, ParallelStrategy):
            return nullcontext()
        return strategy.block_backward_sync()

    def lr_factor(self, step: int) -> float:
        """Factor of the learning rate at an optimizer step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "cosine":
            span = max(1, self.total_steps - self.warmup_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - self.warmup_steps) / span)))
        return self.plateau.factor

    def on_train_start(self) -> None:
        """Go over to the schedule of another number of steps than the checkpoint was trained for.

        The scheduler has set the rate of the next step already.
        """
        scheduler: Any = self.lr_schedulers()
        step: int = scheduler.last_epoch
        if self._total_changed and (self.schedule == "cosine" or step < self.warmup_steps):
            for group, peak in zip(
                scheduler.optimizer.param_groups, scheduler.base_lrs, strict=True
            ):
                group["lr"] = peak * self.lr_factor(step)

    # ------------------------------------------------------------ checkpoints
    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        """The trained tensors; frozen weights are not saved."""
        state = {f"model.{n}": t for n, t in full_state_dict(self.model).items()}
        if self.distillation is not None:
            projections = self.distillation.state_dict()
            state |= {f"distillation.{n}": t for n, t in projections.items()}
        return state

    def adapter_tensors(self) -> dict[str, Tensor]:
        """Tensors of the adapter, in the main process; must be called by all processes."""
        state = full_state_dict(self.model)
        return {n: t.reshape(()) if n in self.scalar_names else t for n, t in state.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the state of the schedule, and which teacher it is."""
        if self.distillation is not None:
            checkpoint["teacher"] = self.distillation.teacher
        checkpoint["total_steps"] = self.total_steps
        checkpoint["plateau"] = vars(self.plateau).copy()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of the schedule. Raises `GeotuneError` if the teacher changed."""
        if self.distillation is not None:
            check_same_teacher(checkpoint.get("teacher"), self.distillation.teacher)
        self._total_changed = checkpoint.get("total_steps", self.total_steps) != self.total_steps
        self.plateau = Plateau(**checkpoint["plateau"])


def check_same_teacher(before: str | None, now: str) -> None:
    """Raise `GeotuneError` if a checkpoint was trained with another teacher; both are hashes."""
    if before != now:
        raise GeotuneError(
            f"distill.run: its adapter has hash {now[:12]}, but the training began with a teacher "
            f"of hash {str(before)[:12]}; restore the teacher's run, or start again with "
            "--overwrite",
            code="teacher-mismatch",
            key="distill.run",
        )


def lower_is_better(task: Task, monitor: str) -> bool:
    """Whether a metric of the task, or `loss`, improves as it decreases."""
    return monitor == "loss" or monitor in task.lower_is_better


class Plateau:
    """Halves the learning rate if a metric has not improved for `PLATEAU_EPOCHS` epochs."""

    def __init__(
        self, best: float = -math.inf, waited: int = 0, factor: float = 1.0, epoch: int = 0
    ) -> None:
        self.best = best
        self.waited = waited
        self.factor = factor
        self.epoch = epoch

    def step(self, value: float, epoch: int) -> None:
        """Update with the metric after `epoch` epochs; higher is better."""
        passed, self.epoch = epoch - self.epoch, epoch
        if value > self.best:
            self.best, self.waited = value, 0
            return
        self.waited += passed
        if self.waited >= PLATEAU_EPOCHS:
            self.factor, self.waited = self.factor * PLATEAU_FACTOR, 0
