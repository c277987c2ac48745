"""Build the optimizer."""

from __future__ import annotations

import torch
from torch import nn

from geotune.methods.core.injection import is_inserted
from geotune.model import Model

BACKBONE_LR_FACTOR = 0.1
"""Default of `train.backbone_lr` relative to `train.lr` if backbone weights are trained."""


def make_optimizer(
    model: Model, *, lr: float, backbone_lr: float | None, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW, without weight decay for norms, biases and scalars.

    `backbone_lr` applies to pretrained parameters; by default it is a tenth of `lr` if weight
    matrices are among them, else `lr`.
    """
    parameters = _pretrained_parameters(model)
    pretrained = {id(parameter) for parameter in parameters}
    if backbone_lr is None:
        has_weights = any(parameter.ndim > 1 for parameter in parameters)
        backbone_lr = lr * (BACKBONE_LR_FACTOR if has_weights else 1.0)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = id(parameter) in pretrained, parameter.ndim > 1
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": group,
                "lr": backbone_lr if is_pretrained else lr,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (is_pretrained, decays), group in sorted(groups.items(), key=lambda g: g[0])
        ]
    )


def _pretrained_parameters(model: Model) -> list[nn.Parameter]:
    """Trained parameters of the backbone itself, without modules that a method inserted."""
    return [
        parameter
        for module in model.encoder.backbone.modules()
        if not is_inserted(module)
        for parameter in module.parameters(recurse=False)
        if parameter.requires_grad
    ]
