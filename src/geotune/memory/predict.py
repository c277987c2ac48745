"""The peak memory of a training step, before there is one.

The second step of a training is run on fake tensors, shapes without contents, in the order of
`training/module.py`: passes forward under autocast and back for each micro-batch, gradients added
up and clipped, the optimizer, whose state is there since the first step, gradients gone at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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

from geotune.memory.track import TrackedPeak, Tracker, faked

CUDA_CONTEXT_BYTES = 512 * 2**20
"""What a CUDA context with cuBLAS' and cuDNN's handles takes beside all tensors; assumed."""
ALLOCATOR_SHARE = 0.1
"""What PyTorch's allocator reserves over what tensors take, for blocks and gaps; assumed."""


class UnpredictableError(Exception):
    """A model that cannot be run on fake tensors: it looks at values."""


@dataclass(frozen=True)
class Step:
    """What a training step is.

    Attributes:
        inputs: what the model is given with a micro-batch, by name, nested in any way; tensors of
            which only shape and type are read.
        targets: what they should make of it, so too.
        loss: of the model's outputs and the targets.
        optimizer: makes it, of a model's parameters that train.
        precision: `32-true`, or a mixed one.
        accumulate: micro-batches of a step.
        clip: norm of the gradients; 0 for none.
    """

    inputs: Mapping[str, Any]
    targets: Any
    loss: Callable[[Any, Any], Tensor]
    optimizer: Callable[[nn.Module], Optimizer]
    precision: str = "32-true"
    accumulate: int = 1
    clip: float = 0.0


@dataclass(frozen=True)
class Prediction:
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
    def allocator_bytes(self) -> int:
        """What the allocator of a GPU takes beside tensors, by `ALLOCATOR_SHARE`."""
        return round(ALLOCATOR_SHARE * self.gpu.total)

    @property
    def context_bytes(self) -> int:
        """What a GPU's context takes, `CUDA_CONTEXT_BYTES`."""
        return CUDA_CONTEXT_BYTES

    @property
    def gpu_bytes(self) -> int:
        """All that a GPU has to have free."""
        return self.gpu.total + self.allocator_bytes + self.context_bytes


def predict(
    model: nn.Module,
    step: Step,
    places: Mapping[str, Iterable[nn.Module]] | None = None,
    *,
    compute: bool = False,
) -> Prediction:
    """Predict the peak of a step of this model, real or fake, which stays as it is.

    Args:
        model: in the mode in which it trains.
        step: see `Step`.
        places: modules by the name of the place that they are, as in `Tracker`.
        compute: run the steps on real tensors, which takes their memory and changes the model.

    Raises `UnpredictableError` where a model looks at values, which fake tensors do not have.
    """
    if compute:
        return _predict(model, step, places, nullcontext(), compute)
    mode = detect_fake_mode(list(model.parameters()))
    try:
        if mode is None:
            mode = FakeTensorMode()
            names = {place: _paths(model, modules) for place, modules in (places or {}).items()}
            model = faked(model, mode)
            places = {p: [model.get_submodule(path) for path in v] for p, v in names.items()}
        return _predict(model, step, places, mode, compute)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise UnpredictableError(f"{type(error).__name__}: {error}") from error


def _paths(model: nn.Module, modules: Iterable[nn.Module]) -> list[str]:
    path_of = {module: path for path, module in model.named_modules()}
    return [path_of[module] for module in modules]


def _predict(
    model: nn.Module,
    step: Step,
    places: Mapping[str, Iterable[nn.Module]] | None,
    mode: Any,
    compute: bool,
) -> Prediction:
    with torch.random.fork_rng(devices=[]), mode:
        optimizer = step.optimizer(model)
        inputs, targets = tree_map_only(
            Tensor, lambda x: torch.zeros(x.shape, dtype=x.dtype), (dict(step.inputs), step.targets)
        )
        counter = _Flops()
        with counter:
            _run(model, step, inputs, targets, optimizer, 1)
        with Tracker(model, optimizer, (inputs, targets), places) as tracker:
            # a third micro-batch is as the second, which meets the gradients of the first
            _run(model, step, inputs, targets, optimizer, min(step.accumulate, 2))
        at_once = _optimizer_peak(model, optimizer, (inputs, targets), places)
    one_by_one = tracker.peak
    return Prediction(
        cpu=one_by_one,
        gpu=max(one_by_one, at_once, key=lambda peak: peak.total),
        flops=counter.flops * step.accumulate,
        computed=compute,
    )


def _optimizer_peak(model: nn.Module, optimizer: Optimizer, batch: Any, places: Any) -> TrackedPeak:
    """The peak of the optimizer's step where it goes through all parameters at once."""
    for parameter in optimizer.state:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["foreach"] = True
    with Tracker(model, optimizer, batch, places) as tracker:
        optimizer.step()
    for parameter in optimizer.state:
        parameter.grad = None
    return tracker.peak


def _run(
    model: nn.Module,
    step: Step,
    inputs: Mapping[str, Any],
    targets: Any,
    optimizer: Optimizer,
    micro_batches: int,
) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for _ in range(micro_batches):
        with torch.autocast("cpu", torch.bfloat16, enabled=step.precision != "32-true"):
            loss = step.loss(model(**inputs), targets)
        (loss / step.accumulate).backward()  # type: ignore[no-untyped-call]
        del loss
    if step.clip:
        torch.nn.utils.clip_grad_norm_(trained, step.clip)
    optimizer.step()
    for parameter in trained:
        parameter.grad = None


class _Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]
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
