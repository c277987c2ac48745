"""Batch norm for batches with a single value per channel, and over several processes."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def allow_single_values(model: nn.Module) -> None:
    """Normalise batches of one value per channel with the running statistics, also in training.

    PyTorch raises an error for them, because the variance of one value is zero. They occur with
    one window whose map has a single pixel: in the last batch of an epoch, in a micro-batch, or in
    the pooled branch of a pyramid pooling module. The running statistics stay as they are.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.register_forward_pre_hook(_use_running_statistics)
            module.register_forward_hook(_restore_mode, always_call=True)


def _use_running_statistics(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if module.training and inputs[0].numel() == inputs[0].shape[1]:
        module.training = False
        module.geotune_in_training = True  # type: ignore[assignment]  # not a buffer


def _restore_mode(module: nn.Module, inputs: Any, output: Any) -> None:
    if getattr(module, "geotune_in_training", False):
        module.training = True
        del module.geotune_in_training


def synchronize_batch_norm(model: nn.Module, fixed: Container[nn.Module]) -> None:
    """Make batch norm use the batches of all processes, in place, except for `fixed` layers.

    By timm: PyTorch's own function drops the activation of timm's layers that contain one, which
    leaves another network.
    """
    for module in [*model.modules()]:
        for name, child in [*module.named_children()]:
            synchronized = isinstance(child, nn.SyncBatchNorm)
            if isinstance(child, _BatchNorm) and child not in fixed and not synchronized:
                layer: nn.Module = convert_sync_batchnorm(child)  # type: ignore[no-untyped-call]
                allow_single_values(layer)
                setattr(module, name, layer)
