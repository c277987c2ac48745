"""Rename the keys of a checkpoint to those of a timm model, where the mapping is certain.

Tried in order, until every tensor of the model has a name in the checkpoint: the names as they
are, without a common prefix, by timm's own conversion for the model's family (from the original
repositories of its papers), by the names of ViT, DeiT, MAE and DINOv2 in transformers, by
torchvision's names of ViT, Swin and ConvNeXt, and by position, if the tensors of both have, one by
one, the same last name and shape, as those of torchvision's and timm's convolutional networks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from itertools import islice

import torch
from torch import Tensor, nn

COUNTER = "num_batches_tracked"
"""A buffer of batch norm that older checkpoints lack, and PyTorch therefore does not require."""

State = Mapping[str, Tensor]

Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
"""Patterns and their replacements, applied in this order."""

_VIT: Rules = (
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)
_SWIN: Rules = (
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"^features\.1\.", "layers.0.blocks."),
    (r"^features\.([246])\.", lambda m: f"layers.{int(m[1]) // 2}.downsample."),
    (r"^features\.([357])\.", lambda m: f"layers.{int(m[1]) // 2}.blocks."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)
_CONVNEXT: Rules = (
    (r"^features\.0\.", "stem."),
    (r"^features\.([246])\.", lambda m: f"stages.{int(m[1]) // 2}.downsample."),
    (r"^features\.([1357])\.", lambda m: f"stages.{int(m[1]) // 2}.blocks."),
    (r"\.block\.0\.", ".conv_dw."),
    (r"\.block\.2\.", ".norm."),
    (r"\.block\.3\.", ".mlp.fc1."),
    (r"\.block\.5\.", ".mlp.fc2."),
    (r"\.layer_scale$", ".gamma"),
    (r"^classifier\.0\.", "head.norm."),
)
_TORCHVISION = (_VIT, _SWIN, _CONVNEXT)

_TRANSFORMERS_PATCHES = "embeddings.patch_embeddings.projection.weight"
_TRANSFORMERS: Rules = (  # to the original names of DINOv2, as versions 4 and 5 name the tensors
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.", ""),
    (r"^(encoder\.layer|layers)\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.attention\.attention\.(query|key|value)\.", lambda m: f".attn.{m[1][0]}_proj."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1_proj."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.(weights_out|down_proj)\.", ".mlp.fc2."),
)
_FUSED = (
    (".attn.qkv.", (".attn.q_proj.", ".attn.k_proj.", ".attn.v_proj.")),
    (".mlp.fc1.", (".mlp.gate_proj.", ".mlp.up_proj.")),
)
"""Layers of timm whose outputs are those of several layers."""


def match_keys(state: State, model: nn.Module) -> dict[str, Tensor]:
    """The tensors under the model's names; unchanged if no mapping is certain."""
    own = model.state_dict()
    conversions: tuple[Callable[[], dict[str, Tensor]], ...] = (
        lambda: dict(state),
        lambda: strip_prefix(state, own),
        lambda: _by_timm(state, model),
        lambda: _by_transformers(state, model),
        lambda: _by_torchvision(state, own),
        lambda: _by_position(state, own),
    )
    for convert in conversions:
        converted = convert()
        if not missing_keys(converted, own):
            return converted
    return dict(state)


def missing_keys(state: State, own: State) -> list[str]:
    """The model's keys that a checkpoint lacks and PyTorch's strict loading requires."""
    return [key for key in own if key not in state and not _is_optional(key)]


def strip_prefix(state: State, own: State) -> dict[str, Tensor]:
    """Remove a common prefix of all keys, such as TerraTorch's `model.encoder.`.

    The state dict is returned unchanged if the prefix is ambiguous.
    """
    prefixes = {
        key[: len(key) - len(name)]
        for name in list(own)[:1]
        for key in state
        if key.endswith(f".{name}")
    }
    required = [name for name in own if not _is_optional(name)]
    whole = [prefix for prefix in prefixes if all(prefix + name in state for name in required)]
    if len(whole) != 1 or not missing_keys(state, own):
        return dict(state)  # e.g. student and teacher: the user has to choose
    return {name: state[whole[0] + name] for name in own if whole[0] + name in state}


def _is_optional(key: str) -> bool:
    return key.rpartition(".")[2] == COUNTER


def _by_timm(state: State, model: nn.Module) -> dict[str, Tensor]:
    """Convert by the function that timm applies to the original checkpoints of a family."""
    module = sys.modules[type(model).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    try:
        return dict(convert(dict(state), model)) if convert else {}
    except Exception:  # it expects the keys of other checkpoints
        return {}


def _rename(state: State, rules: Rules) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = tensor
    return renamed


def _by_transformers(state: State, model: nn.Module) -> dict[str, Tensor]:
    patches = [key for key in state if key.endswith(_TRANSFORMERS_PATCHES)]
    if len(patches) != 1:
        return {}
    prefix = patches[0].removesuffix(_TRANSFORMERS_PATCHES)  # such as `vit.` below a head
    inner = {k.removeprefix(prefix): tensor for k, tensor in state.items() if k.startswith(prefix)}
    renamed = _rename(inner, _TRANSFORMERS)
    for fused, layers in _FUSED:
        for key in [key for key in renamed if layers[0] in key]:
            names = [key.replace(layers[0], layer) for layer in layers]
            if any(name not in renamed for name in names):
                return {}
            tensors = [renamed.pop(name) for name in names]
            renamed[key.replace(layers[0], fused)] = torch.cat(tensors)
    converted = _by_timm(renamed, model)
    encoder = {key for key in converted if key.startswith("blocks.") or key.endswith("_token")}
    return converted if encoder <= model.state_dict().keys() else {}


def _by_torchvision(state: State, own: State) -> dict[str, Tensor]:
    for rules in _TORCHVISION:
        renamed = _rename(state, rules)
        # index tables of attention windows are not learned; torchvision stores some in 1-D
        renamed |= {k: v for k, v in own.items() if k.endswith("relative_position_index")}
        for key, tensor in own.items():
            if key in renamed and renamed[key].numel() == tensor.numel():
                renamed[key] = renamed[key].reshape(tensor.shape)
        if not missing_keys(renamed, own):
            return renamed
    return {}


def _by_position(state: State, own: State) -> dict[str, Tensor]:
    names = [key for key in own if not _is_optional(key)]
    theirs = [key for key in state if not _is_optional(key)]
    if len(theirs) < len(names):
        return {}
    for index, (name, other) in enumerate(zip(names, islice(theirs, len(names)), strict=True)):
        shape, found = list(own[name].shape), list(state[other].shape)
        if index == 0 and len(shape) == len(found) == 4:  # of other bands
            shape[1] = found[1]
        if name.rpartition(".")[2] != other.rpartition(".")[2] or shape != found:
            return {}
    return {name: state[other] for name, other in zip(names, theirs, strict=False)}
