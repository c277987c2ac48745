"""Describe a training step without Lightning, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from geotune.config import TrainOptions
from geotune.errors import GeotuneError
from geotune.memory.estimate import StepSpec
from geotune.methods.core.injection import is_inserted
from geotune.model import Model
from geotune.reconstruction import ReconstructionModel
from geotune.tasks.base import Task
from geotune.tasks.step_loss import StepLoss
from geotune.training.optimizer import make_optimizer
from geotune.utils.precision import AUTO


def training_step_spec(
    task: Task,
    train: TrainOptions,
    inputs: Mapping[str, Any],
    targets: Any,
    *,
    world: int = 1,
    micro_batch: int | None = None,
) -> StepSpec:
    """The step of one of `world` processes, for memory estimates.

    Args:
        task: provides the loss.
        train: options, with a resolved precision.
        inputs: of any number of windows; only shapes and dtypes are used.
        targets: likewise.
        world: number of processes.
        micro_batch: windows computed at once; by default from `train.accumulate_steps`.
    """
    if train.precision == AUTO:
        raise ValueError("train.precision auto is not resolved")
    windows = train.batch_size // world

    def batched(x: Tensor) -> Tensor:
        return torch.empty((windows, *x.shape[1:]), dtype=x.dtype, device="meta")

    return StepSpec(
        inputs=tree_map_only(Tensor, batched, dict(inputs)),
        # detection targets are a list of windows; the first one is repeated
        targets=targets[:1] * windows if isinstance(targets, list) else batched(targets),
        loss=partial(StepLoss, task),
        optimizer=lambda model: make_optimizer(
            model,  # type: ignore[arg-type]
            lr=train.lr,
            backbone_lr=train.backbone_lr,
            weight_decay=train.weight_decay,
            layer_decay=train.layer_decay,
            decay_all=train.decay_all,
        ),
        precision=train.precision,
        micro_batch=micro_batch
        or micro_batch_size(train.batch_size, train.accumulate_steps, world),
        grad_clip_norm=train.grad_clip_norm,
        pass_targets=task.output_kind == "objects",
    )


def module_scopes(model: Model) -> dict[str, Iterable[nn.Module]]:
    """The modules of each scope for which memory is reported."""
    encoder = model.encoder
    modules = list(encoder.backbone.modules())
    teacher: list[nn.Module] = []
    decoder = [model.decoder]
    if isinstance(model, ReconstructionModel):
        teacher = [] if model.teacher is None else list(model.teacher.modules())
        decoder.append(model.projections)
    return {
        "backbone": [*(module for module in modules if not is_inserted(module)), *teacher],
        "method": [encoder, encoder.reader, *(module for module in modules if is_inserted(module))],
        "decoder": decoder,
    }


def uses_gpu(train: TrainOptions) -> bool:
    """Whether training runs on NVIDIA GPUs."""
    return train.accelerator == "gpu" or (train.accelerator == "auto" and torch.cuda.is_available())


def num_devices(train: TrainOptions) -> int:
    """Number of processes on one machine."""
    if train.devices != "auto":
        return train.devices
    return max(1, torch.cuda.device_count()) if uses_gpu(train) else 1


def micro_batch_size(batch_size: int, accumulate_steps: int, world: int) -> int:
    """Windows that one process computes at once.

    Raises `GeotuneError` if the batch cannot be split evenly.
    """
    count = accumulate_steps * world
    if batch_size % count:
        raise GeotuneError(
            f"train.batch_size {batch_size} is not a multiple of train.accumulate_steps x devices "
            f"({accumulate_steps} x {world}); choose a multiple of {count}",
            code="settings-incompatible",
            key="train.batch_size",
        )
    return batch_size // count
