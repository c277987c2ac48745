"""Activation checkpointing: recompute a stage's activations in the backward pass.

A checkpointed stage stores its inputs only and runs a second time when its gradient is needed. That
costs one more forward pass and changes no value: the random numbers are the same, and batch-norm
statistics are updated once. A module lists the children worth it in a class attribute,
`recomputable = ("blocks",)`.
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

RECOMPUTING = ("decoder", "all")
"""Values of `train.activation_checkpointing` that recompute, each more than the one before."""


class _Recomputed(nn.Module):
    """Mixin put in front of a stage's class; state-dict keys and tensors do not change."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        forward = super().forward
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _fixed_batch_norm_statistics(self)

        # the second pass sees the context variables of the first
        run = partial(copy_context().run, forward)
        return checkpoint(run, *inputs, use_reentrant=False, context_fn=contexts, **named)


def recompute_stages(model: nn.Module) -> bool:
    """Apply `recompute` to the children that modules list in `recomputable`.

    Returns whether one of them was not checkpointed yet.
    """
    changed = False
    for module in list(model.modules()):
        for name in getattr(type(module), "recomputable", ()):
            child = getattr(module, name)
            is_container = isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential)
            for stage in child.children() if is_container else [child]:
                changed |= recompute(stage)
    return changed


def recompute(stage: nn.Module) -> bool:
    """Checkpoint the activations of a stage, once; returns false if they are already."""
    if isinstance(stage, _Recomputed):
        return False
    cls = type(stage)
    if cls not in _recomputed_classes:
        _recomputed_classes[cls] = type(
            cls.__name__, (_Recomputed, cls), {"__module__": cls.__module__}
        )
    stage.__class__ = _recomputed_classes[cls]
    return True


_recomputed_classes: dict[type[nn.Module], type[nn.Module]] = {}  # copies share theirs


@contextmanager
def _fixed_batch_norm_statistics(stage: nn.Module) -> Iterator[None]:
    """Batch norm normalises by the batch as before, but does not update its statistics again."""
    saved = [
        (module, module.momentum, batches, batches.clone())
        for module in stage.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.training
        and (batches := module.num_batches_tracked) is not None
    ]
    for module, *_ in saved:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum, batches, before in saved:
            module.momentum = momentum
            batches.copy_(before)
