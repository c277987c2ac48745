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

CUDA_CONTEXT_BYTES = 512 * 2**20
"""What a CUDA context with cuBLAS' and cuDNN's handles takes beside all tensors; assumed."""
ALLOCATOR_SHARE = 0.1
"""What PyTorch's allocator reserves over what tensors take, for blocks and gaps; assumed."""


def allocator_bytes(tensors: int) -> int:
    """What the allocator of a GPU takes beside that many bytes of tensors, `ALLOCATOR_SHARE`."""
    return round(ALLOCATOR_SHARE * tensors)


def total_gpu_bytes(tensors: int) -> int:
    """All that a GPU has to have free for that many bytes of tensors."""
    return tensors + allocator_bytes(tensors) + CUDA_CONTEXT_BYTES


class DataDependentModelError(Exception):
    """A model that cannot be run on fake tensors: it looks at values."""


@dataclass(frozen=True)
class StepSpec:
    """What a training step is.

    Attributes:
        inputs: what the model is given with a batch, by name, nested in any way; tensors of which
            only shape and type are read.
        targets: what is learnt of it, so too; `[i:j]` are those of some windows.
        loss: of outputs and targets.
        optimizer: makes it, of a model's parameters that train.
        precision: `32-true`, or a mixed one.
        micro: windows that are computed at once; by default all of the batch.
        clip: norm of the gradients; 0 for none.
        shown: whether the model is given the targets, too, as `targets`.
    """

    inputs: Mapping[str, Any]
    targets: Any
    loss: Callable[[Any, Any], Tensor]
    optimizer: Callable[[nn.Module], Optimizer]
    precision: str = "32-true"
    micro_batch: int | None = None
    grad_clip_norm: float = 0.0
    pass_targets: bool = False


@dataclass(frozen=True)
class PeakEstimate:
    """The peak of live tensor bytes of a step, and what comes on top.

    Attributes:
        cpu: on a CPU, where the optimizer goes through the parameters one by one.
        gpu: on a GPU, where it goes through all of them at once.
        flops: floating point operations of a step's products and convolutions, what is computed
            again among them.
        computed: the step was run on real tensors, as the model looks at values.
    """

    cpu: TrackedPeak
    gpu: TrackedPeak
    flops: int
    computed: bool = False

    @property
    def total_gpu_bytes(self) -> int:
        """All that a GPU has to have free."""
        return total_gpu_bytes(self.gpu.total)


def estimate_peak(
    model: nn.Module,
    step: StepSpec,
    scopes: Mapping[str, Iterable[nn.Module]] | None = None,
    *,
    compute: bool = False,
) -> PeakEstimate:
    """Predict the peak of a step of this model, real or fake, which stays as it is.

    Args:
        model: in the mode in which it trains.
        step: see `Step`.
        places: modules by the name of the place that they are, as in `Tracker`.
        compute: run the step on real tensors, which takes their memory and changes the model.

    Raises `UnpredictableError` where a model looks at values, which fake tensors do not have.
    """
    if compute:
        return _estimate(model, step, scopes, nullcontext(), compute)
    mode = detect_fake_mode(list(model.parameters()))
    try:
        if mode is None:
            mode = FakeTensorMode()
            names = {
                place: _module_names(model, modules) for place, modules in (scopes or {}).items()
            }
            model = to_fake(model, mode)
            scopes = {p: [model.get_submodule(path) for path in v] for p, v in names.items()}
        return _estimate(model, step, scopes, mode, compute)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise DataDependentModelError(f"{type(error).__name__}: {error}") from error


def _module_names(model: nn.Module, modules: Iterable[nn.Module]) -> list[str]:
    path_of = {module: path for path, module in model.named_modules()}
    return [path_of[module] for module in modules]


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
        # a third part is as the second, which meets the gradients of the first
        parts = [slice(i, i + micro) for i in range(0, len(targets), micro)][:2]
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        while True:
            _step_with_zero_gradients(optimizer, trained)  # makes its state
            counter = _FlopCounter()
            with counter, MemoryTracker(model, optimizer, (inputs, targets), scopes) as tracker:
                reached = _run_step(model, step, inputs, targets, optimizer, parts)
            if len(reached) == len(trained):
                break
            optimizer.state.clear()  # those that no gradient reaches never get one
            trained = reached
        with MemoryTracker(model, optimizer, (inputs, targets), scopes) as at_once:
            _step_with_zero_gradients(optimizer, trained, foreach=True)
    return PeakEstimate(
        cpu=tracker.peak,
        gpu=max(tracker.peak, at_once.peak, key=lambda peak: peak.total),
        flops=counter.flops * len(targets) // (micro * len(parts)),
        computed=compute,
    )


def _step_with_zero_gradients(
    optimizer: Optimizer, parameters: Iterable[nn.Parameter], *, foreach: bool = False
) -> None:
    """Step with gradients that change nothing; `foreach`: all parameters at once."""
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
    parts: Sequence[slice],
) -> list[nn.Parameter]:
    """One step. Gives the parameters that a gradient reached."""
    for part in parts:
        own = tree_map_only(Tensor, lambda x: x[part], inputs)  # noqa: B023  # called at once
        with torch.autocast("cpu", torch.bfloat16, enabled=step.precision != "32-true"):
            shown = {"targets": targets[part]} if step.pass_targets else {}
            loss = step.loss(model(**own, **shown), targets[part])
        (loss * (1 / len(parts))).backward()  # type: ignore[no-untyped-call]
        del own, shown, loss
    reached = [parameter for parameter in model.parameters() if parameter.grad is not None]
    if step.grad_clip_norm:
        torch.nn.utils.clip_grad_norm_(reached, step.grad_clip_norm)
    optimizer.step()
    for parameter in reached:
        parameter.grad = None
    return reached


class _FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of products and convolutions."""

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
