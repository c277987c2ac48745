"""Stages of a network that are computed again in the backward pass in place of being kept.

A stage that is marked keeps its inputs only; what is inside it is computed a second time when its
gradient is due. That costs one more pass forward through the stage, and changes no value: random
numbers are the same, and batch norm's statistics move once. A module says in its class attribute
`recomputable` which of its children are worth it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class _Recomputed(nn.Module):
    """Goes in front of a module's own class; neither names nor tensors of the module change."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        forward = super().forward
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _still_statistics(self)

        # the second pass sees the context variables of the first
        run = partial(copy_context().run, forward)
        return checkpoint(run, *inputs, use_reentrant=False, context_fn=contexts, **named)


def recompute_stages(model: nn.Module) -> None:
    """Mark all that the modules of a model declare, as names of children in `recomputable`."""
    for module in list(model.modules()):
        for name in getattr(type(module), "recomputable", ()):
            child = getattr(module, name)
            several = isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential)
            for stage in child.children() if several else [child]:
                recompute(stage)


def recompute(stage: nn.Module) -> None:
    """Mark a stage."""
    if not isinstance(stage, _Recomputed):
        kind = type(stage)
        if kind not in _marked:
            _marked[kind] = type(
                kind.__name__, (_Recomputed, kind), {"__module__": kind.__module__}
            )
        stage.__class__ = _marked[kind]


_marked: dict[type[nn.Module], type[nn.Module]] = {}  # one for each class, for copies to share


@contextmanager
def _still_statistics(stage: nn.Module) -> Iterator[None]:
    """Batch norm normalises by the batch as before, but its statistics move no second time."""
    moving = [
        module
        for module in stage.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.training
        and module.num_batches_tracked is not None
    ]
    momenta = [module.momentum for module in moving]
    for module in moving:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum in zip(moving, momenta, strict=True):
            module.momentum = momentum
            module.num_batches_tracked.sub_(1)  # type: ignore[union-attr]
