"""Build the optimizer: learning rates and weight decay of each parameter."""

from __future__ import annotations

import torch
from torch import nn

from geotune.backbones.base import Backbone
from geotune.methods.core.injection import is_inserted
from geotune.methods.core.layer_updates import LayerUpdate
from geotune.model import Model

BACKBONE_LR_FACTOR = 0.1
"""Default of `train.backbone_lr` relative to `train.lr` if backbone weights are trained."""
NO_DECAY = ("bias", "scale", "gamma", "token", "embed", "pos")
"""Parts of the names of parameters with several dimensions that are not weights of a layer:
position embeddings and bias tables, class tokens, prompts, scales."""

FACTORS_OF_PEFT = ("lora_magnitude_vector.", "ia3_l.")
"""In the names of parameters of peft's tuners that multiply pretrained weights."""


def make_optimizer(
    model: Model,
    *,
    lr: float,
    backbone_lr: float | None,
    weight_decay: float,
    layer_decay: float = 1.0,
    decay_all: bool = False,
) -> torch.optim.AdamW:
    """AdamW with weight decay for the weights of layers only.

    Factors of pretrained weights (`LayerUpdate.decays`), norms, biases, scalars, tokens, position
    embeddings and bias tables, and what a timm model lists in `no_weight_decay`, have none.

    Args:
        model: only parameters that require gradients are optimised.
        lr: of all parameters that are not pretrained.
        backbone_lr: of pretrained parameters; by default a tenth of `lr` if weights of layers are
            among them, else `lr`.
        weight_decay: see above.
        layer_decay: factor of `backbone_lr` from one backbone block to the block before it (BEiT,
            arXiv 2106.08254).
        decay_all: weight decay for all parameters.
    """
    weights = _decayed_parameters(model)
    decayed = set(model.parameters()) if decay_all else weights
    layers = _pretrained_layers(model.encoder.backbone)
    if backbone_lr is None:
        has_weights = any(parameter in weights for parameter in layers)
        backbone_lr = lr * (BACKBONE_LR_FACTOR if has_weights else 1.0)
    last = max(layers.values(), default=0)
    groups: dict[tuple[bool, int, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            depth = last - layers.get(parameter, last) if layer_decay != 1 else 0
            key = parameter in layers, depth, parameter in decayed
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": group,
                "lr": backbone_lr * layer_decay**depth if pretrained else lr,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (pretrained, depth, decays), group in sorted(groups.items(), key=lambda g: g[0])
        ]
    )


def layer_decay_note(model: Model, layer_decay: float) -> str | None:
    """A note if `layer_decay` changes no learning rate."""
    backbone = model.encoder.backbone
    if layer_decay == 1 or len(set(_pretrained_layers(backbone).values())) > 1:
        return None
    several = "the method trains no pretrained weights in several of its blocks"
    reason = several if backbone.blocks else "its blocks are unknown"
    return f"train.layer_decay {layer_decay:g} has no effect on {backbone.name}: {reason}"


def _decayed_parameters(model: Model) -> set[nn.Parameter]:
    listed: set[str] = getattr(model.encoder.backbone.model, "no_weight_decay", set)()
    factors = {
        parameter
        for module in model.modules()
        if isinstance(module, LayerUpdate) and not module.decays
        for parameter in module.parameters()
    }
    return {
        parameter
        for prefix, module in model.named_modules()
        if not isinstance(module, nn.Embedding)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim > 1
        and parameter not in factors
        and not any(part in name for part in NO_DECAY)
        and not any(part in f"{prefix}.{name}" for part in FACTORS_OF_PEFT)
        and not any(f"{prefix}.{name}".endswith(f".{other}") for other in listed)
    }


def _pretrained_layers(backbone: Backbone) -> dict[nn.Parameter, int]:
    """The trained parameters of the backbone itself, without inserted modules, by layer.

    Layer 0 is before the first block, layer `i` is block `i` with what precedes it, and the last
    layer is what follows the last block.
    """
    layers: dict[nn.Parameter, int] = {}
    blocks = {id(block): i for i, block in enumerate(backbone.blocks, start=1)}
    layer = 0

    def visit(module: nn.Module, *, in_block: bool = False) -> None:
        nonlocal layer
        is_block = id(module) in blocks
        layer = blocks.get(id(module), layer)
        if not is_inserted(module):
            own = (p for p in module.parameters(recurse=False) if p.requires_grad)
            layers.update(dict.fromkeys(own, layer))
        for child in module.children():
            visit(child, in_block=in_block or is_block)
        if is_block and not in_block:
            layer += 1

    visit(backbone)
    return layers
