"""The optimizer of every training."""

from __future__ import annotations

import torch
from torch import nn

from geotune.methods.core.injection import is_inserted
from geotune.model import Model

BACKBONE_LR_FACTOR = 0.1
"""A backbone that trains whole learns at this share of the rate, unless the recipe says."""


def make_optimizer(
    model: Model, *, lr: float, backbone_lr: float | None, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW; norms, biases and single numbers without decay."""
    own = _pretrained_parameters(model)
    pretrained = {id(parameter) for parameter in own}
    if backbone_lr is None:
        whole = any(parameter.ndim > 1 for parameter in own)
        backbone_lr = lr * (BACKBONE_LR_FACTOR if whole else 1.0)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = id(parameter) in pretrained, parameter.ndim > 1
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": backbone_lr if of_backbone else lr,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (of_backbone, decays), parameters in sorted(groups.items(), key=lambda g: g[0])
        ]
    )


def _pretrained_parameters(model: Model) -> list[nn.Parameter]:
    """What trains of the backbone's own, not of what a method put in."""
    return [
        parameter
        for module in model.encoder.backbone.modules()
        if not is_inserted(module)
        for parameter in module.parameters(recurse=False)
        if parameter.requires_grad
    ]
