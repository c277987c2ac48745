"""Estimate a training step's memory, and change the step where that does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from geotune.config import TrainOptions
from geotune.feature_cache.capacity import format_bytes
from geotune.memory.estimate import DataDependentModelError, allocator_bytes, estimate_peak
from geotune.memory.tracker import to_fake
from geotune.model import Model
from geotune.tasks.base import Task
from geotune.training.micro_batching import MicroBatcher
from geotune.training.step import training_step_spec
from geotune.types import Batch
from geotune.utils.activation_checkpointing import RECOMPUTING
from geotune.utils.available_memory import available_memory

OnChange = Callable[[Mapping[str, Any], str], None]
"""Receives new values of `train` options, and the reason."""


class StepMemory:
    """The memory of the training steps of a model.

    When memory does not suffice, more activations are recomputed, which changes no result, and then
    micro-batches become smaller.

    Args:
        model: to train.
        task: of the model.
        train: options.
        micro: initial number of windows per micro-batch.
        planned_bytes: estimate of a step's tensors; None without one.
        on_change: called after a change; None if nothing may change.

    Attributes:
        level: current `train.activation_checkpointing`.
        micro_batcher: splits batches; has the current micro-batch size.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        train: TrainOptions,
        *,
        micro: int,
        planned_bytes: int | None,
        adapt_checkpointing: bool,
        on_change: OnChange | None,
    ) -> None:
        self.model = model
        self.task = task
        self.train = train
        self.level: str = train.activation_checkpointing
        self.micro_batcher = MicroBatcher(
            micro, self._micro_batch_changed if on_change else None, self._recompute_more
        )
        self._adapts = adapt_checkpointing
        self._on_change = on_change
        self._fake: Model | None = None
        self._example: Batch | None = None
        self._estimate = planned_bytes
        self._estimated_for = None if planned_bytes is None else self._settings

    @property
    def _settings(self) -> tuple[str, int]:
        return self.level, self.micro_batcher.size

    def estimate(self, example: Batch, device: torch.device, world: int) -> None:
        """Estimate a step from a batch of any size, and adapt it to the free memory of the device.

        The model is on the CPU.
        """
        fake = to_fake(self.model, FakeTensorMode())
        assert isinstance(fake, Model)
        self._fake, self._example = fake, example
        self._device, self._world = device, world
        while (bytes_ := self.predicted_bytes()) is not None:
            reason = _lack_of_memory(bytes_, device, self.model)
            if reason is None or not self._recompute_more(reason):
                break

    def predicted_bytes(self) -> int | None:
        """Estimated peak of the tensors of a step as it is now; None if it was not estimated."""
        if self._estimated_for == self._settings:
            return self._estimate
        self._estimate, self._estimated_for = None, self._settings
        if self._fake is None or self._example is None:
            return None
        if self.level in RECOMPUTING:
            self._fake.recompute(self.level)
        step = training_step_spec(
            self.task,
            self.train,
            self._example.inputs,
            self._example.targets,
            world=self._world,
            micro_batch=self.micro_batcher.size,
        )
        try:
            estimate = estimate_peak(self._fake, step)
        except DataDependentModelError:
            return None
        on_gpu = self._device.type == "cuda"
        self._estimate = (estimate.gpu if on_gpu else estimate.cpu).total
        return self._estimate

    def _recompute_more(self, reason: str) -> bool:
        if self._on_change is None or not self._adapts:
            return False
        for level in RECOMPUTING:
            if self.model.recompute(level):
                self.level = level
                self._on_change({"activation_checkpointing": level}, reason)
                return True
        return False

    def _micro_batch_changed(self, size: int, reason: str) -> None:
        assert self._on_change is not None
        self._on_change({"accumulate_steps": self.train.batch_size // size}, reason)


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a GPU, or of main memory; None if the system does not report it."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return available_memory()


def _lack_of_memory(predicted: int, device: torch.device, model: nn.Module) -> str | None:
    """Whether a step of that many bytes of tensors exceeds the free memory, in words, or None.

    The model is on the CPU.
    """
    if device.type == "cuda":
        needed = predicted + allocator_bytes(predicted)
    else:
        needed = predicted - sum(x.nbytes for x in (*model.parameters(), *model.buffers()))
    free = free_memory(device)
    if free is None or needed <= free:
        return None
    return f"a step needs {format_bytes(needed)}, but {format_bytes(free)} of memory are free"
