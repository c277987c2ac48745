"""What a step of a training is, without Lightning, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from geotune.config import TrainOptions
from geotune.errors import GeotuneError
from geotune.memory.estimate import StepSpec
from geotune.methods.core.injection import is_inserted
from geotune.model import Model
from geotune.tasks.base import Task
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
    """A step of one of `world` processes, from the inputs and targets of any number of windows.

    `micro` windows are computed at once, by default as many as the recipe says.
    """
    if train.precision == AUTO:
        raise ValueError("train.precision auto is not resolved")
    windows = train.batch_size // world

    def several(x: Tensor) -> Tensor:
        return torch.empty((windows, *x.shape[1:]), dtype=x.dtype, device="meta")

    return StepSpec(
        inputs=tree_map_only(Tensor, several, dict(inputs)),
        # Of images that hold several things each there is a list, and the first stands for all.
        targets=targets[:1] * windows if isinstance(targets, list) else several(targets),
        loss=task.loss,
        optimizer=lambda model: make_optimizer(
            model,  # type: ignore[arg-type]
            lr=train.lr,
            backbone_lr=train.backbone_lr,
            weight_decay=train.weight_decay,
        ),
        precision=train.precision,
        micro_batch=micro_batch
        or micro_batch_size(train.batch_size, train.accumulate_steps, world),
        grad_clip_norm=train.grad_clip_norm,
        pass_targets=task.output_kind == "objects",
    )


def module_scopes(model: Model) -> dict[str, Iterable[nn.Module]]:
    """The parts of a model by which its memory is told apart."""
    encoder = model.encoder
    own = list(encoder.backbone.modules())
    return {
        "backbone": [module for module in own if not is_inserted(module)],
        "method": [encoder, encoder.reader, *(module for module in own if is_inserted(module))],
        "decoder": [model.decoder],
    }


def uses_gpu(train: TrainOptions) -> bool:
    """Whether the training runs on NVIDIA's GPUs."""
    return train.accelerator == "gpu" or (train.accelerator == "auto" and torch.cuda.is_available())


def num_devices(train: TrainOptions) -> int:
    """Processes of one machine."""
    if train.devices != "auto":
        return train.devices
    return max(1, torch.cuda.device_count()) if uses_gpu(train) else 1


def micro_batch_size(batch_size: int, accumulate_steps: int, world: int) -> int:
    """Windows that one process computes at once.

    Raises `GeotuneError` for a batch that cannot be parted so.
    """
    parts = accumulate_steps * world
    if batch_size % parts:
        raise GeotuneError(
            f"train.batch_size {batch_size} is no multiple of train.accumulate_steps x devices "
            f"({accumulate_steps} x {world}); choose one that is"
        )
    return batch_size // parts
