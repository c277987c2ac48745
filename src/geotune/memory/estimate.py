"""Estimate the peak memory of a training step before training.

One step runs on fake tensors (shapes without contents) in the order of
`training/training_module.py`: for each micro-batch a forward pass under autocast and a backward
pass, then accumulated and clipped gradients, the optimizer with its state, gradients released.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

from geotune.memory.tracker import MemoryTracker, TrackedPeak, to_fake
from geotune.utils.precision import autocast

CUDA_CONTEXT_BYTES = 512 * 2**20
"""Assumed size of a CUDA context with the handles of cuBLAS and cuDNN."""
ALLOCATOR_SHARE = 0.1
"""Assumed overhead of PyTorch's allocator (blocks and gaps), relative to the tensors."""


def allocator_bytes(tensors: int) -> int:
    """Overhead of the GPU allocator for that many bytes of tensors."""
    return round(ALLOCATOR_SHARE * tensors)


def total_gpu_bytes(tensors: int) -> int:
    """Free GPU memory needed for that many bytes of tensors."""
    return tensors + allocator_bytes(tensors) + CUDA_CONTEXT_BYTES


class DataDependentModelError(Exception):
    """A model whose computation depends on tensor values cannot run on fake tensors."""


@dataclass(frozen=True)
class StepSpec:
    """One training step.

    Attributes:
        inputs: keyword arguments of the model for one batch, nested in any way; only shapes and
            dtypes of the tensors are read.
        targets: of the batch, likewise; `[i:j]` selects windows.
        loss: gets the targets of the batch and returns the loss function of a micro-batch's
            outputs and targets.
        optimizer: builds the optimizer of a model.
        precision: `32-true` or a mixed one.
        micro_batch: windows computed at once; None for the whole batch.
        grad_clip_norm: 0 disables gradient clipping.
        pass_targets: the model also receives the targets, as `targets`.
    """

    inputs: Mapping[str, Any]
    targets: Any
    loss: Callable[[Any], Callable[[Any, Any], Tensor]]
    optimizer: Callable[[nn.Module], Optimizer]
    precision: str = "32-true"
    micro_batch: int | None = None
    grad_clip_norm: float = 0.0
    pass_targets: bool = False


@dataclass(frozen=True)
class PeakEstimate:
    """The estimated peak of live tensor bytes of a step.

    Attributes:
        cpu: the optimizer updates one parameter after another.
        gpu: the optimizer updates all parameters at once.
        flops: floating point operations of matrix products and convolutions, recomputed ones
            included.
        computed: the step ran on real tensors, because the model depends on tensor values.
    """

    cpu: TrackedPeak
    gpu: TrackedPeak
    flops: int
    computed: bool = False

    @property
    def total_gpu_bytes(self) -> int:
        """Free GPU memory that the step needs."""
        return total_gpu_bytes(self.gpu.total)


def estimate_peak(
    model: nn.Module,
    step: StepSpec,
    scopes: Mapping[str, Iterable[nn.Module]] | None = None,
    *,
    compute: bool = False,
) -> PeakEstimate:
    """Estimate the peak memory of a training step of a real or fake model, without changing it.

    Args:
        model: in training mode.
        step: to estimate.
        scopes: modules by scope name, see `ModuleTracker`.
        compute: run the step on real tensors, which needs their memory and changes the model.

    Raises `DataDependentModelError` for a model that cannot run on fake tensors.
    """
    if compute:
        return _estimate(model, step, scopes, nullcontext(), compute)
    mode = detect_fake_mode(list(model.parameters()))
    try:
        if mode is None:
            mode = FakeTensorMode()
            names = {s: _module_names(model, modules) for s, modules in (scopes or {}).items()}
            model = to_fake(model, mode)
            scopes = {s: [model.get_submodule(name) for name in v] for s, v in names.items()}
        return _estimate(model, step, scopes, mode, compute)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise DataDependentModelError(f"{type(error).__name__}: {error}") from error


def _module_names(model: nn.Module, modules: Iterable[nn.Module]) -> list[str]:
    name_of = {module: name for name, module in model.named_modules()}
    return [name_of[module] for module in modules]


def _estimate(
    model: nn.Module,
    step: StepSpec,
    scopes: Mapping[str, Iterable[nn.Module]] | None,
    mode: Any,
    compute: bool,
) -> PeakEstimate:
    with torch.random.fork_rng(devices=[]), mode:
        optimizer = step.optimizer(model)
        inputs, targets = tree_map_only(
            Tensor, lambda x: torch.zeros(x.shape, dtype=x.dtype), (dict(step.inputs), step.targets)
        )
        micro = step.micro_batch or len(targets)
        # a third micro-batch is like the second, which accumulates onto the gradients of the first
        slices = [slice(i, i + micro) for i in range(0, len(targets), micro)][:2]
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        while True:
            _step_with_zero_gradients(optimizer, trained)  # creates its state
            counter = _FlopCounter()
            with counter, MemoryTracker(model, optimizer, (inputs, targets), scopes) as tracker:
                reached = _run_step(model, step, inputs, targets, optimizer, slices)
            if len(reached) == len(trained):
                break
            optimizer.state.clear()  # parameters without gradients never get a state
            trained = reached
        with MemoryTracker(model, optimizer, (inputs, targets), scopes) as at_once:
            _step_with_zero_gradients(optimizer, trained, foreach=True)
    return PeakEstimate(
        cpu=tracker.peak,
        gpu=max(tracker.peak, at_once.peak, key=lambda peak: peak.total),
        flops=counter.flops * len(targets) // (micro * len(slices)),
        computed=compute,
    )


def _step_with_zero_gradients(
    optimizer: Optimizer, parameters: Iterable[nn.Parameter], *, foreach: bool = False
) -> None:
    """Step with zero gradients; `foreach`: all parameters at once."""
    for group in optimizer.param_groups:
        group["foreach"] = foreach
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter in parameters:
        parameter.grad = None


def _run_step(
    model: nn.Module,
    step: StepSpec,
    inputs: Mapping[str, Any],
    targets: Any,
    optimizer: Optimizer,
    slices: Sequence[slice],
) -> list[nn.Parameter]:
    """Run one step; returns the parameters that received a gradient."""
    loss_of = step.loss(targets)
    for micro in slices:
        own = tree_map_only(Tensor, lambda x: x[micro], inputs)  # noqa: B023  # called at once
        with autocast(torch.device("cpu"), step.precision):
            extra = {"targets": targets[micro]} if step.pass_targets else {}
            loss = loss_of(model(**own, **extra), targets[micro])
        loss.backward()  # type: ignore[no-untyped-call]
        del own, extra, loss
    reached = [parameter for parameter in model.parameters() if parameter.grad is not None]
    if step.grad_clip_norm:
        torch.nn.utils.clip_grad_norm_(reached, step.grad_clip_norm)
    optimizer.step()
    for parameter in reached:
        parameter.grad = None
    return reached


class _FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of matrix products and convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        return out
