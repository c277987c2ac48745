"""Rename the keys of a checkpoint to those of a timm model, where the mapping is certain.

Tried in order, until every tensor of the model has a name in the checkpoint: the names as they
are, without a common prefix, by timm's own conversion for the model's family (from the original
repositories of its papers), by torchvision's names of ViT, Swin and ConvNeXt, and by position, if
the tensors of both have, one by one, the same last name and shape, as those of torchvision's and
timm's convolutional networks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from itertools import islice

from torch import Tensor, nn

COUNTER = "num_batches_tracked"
"""A buffer of batch norm that older checkpoints lack, and PyTorch therefore does not require."""

State = Mapping[str, Tensor]

_VIT = (
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
_SWIN = (
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"^features\.1\.", "layers.0.blocks."),
    (r"^features\.([246])\.", lambda m: f"layers.{int(m[1]) // 2}.downsample."),
    (r"^features\.([357])\.", lambda m: f"layers.{int(m[1]) // 2}.blocks."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)
_CONVNEXT = (
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
_TORCHVISION: tuple[tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...], ...] = (
    _VIT,
    _SWIN,
    _CONVNEXT,
)


def match_keys(state: State, model: nn.Module) -> dict[str, Tensor]:
    """The tensors under the model's names; unchanged if no mapping is certain."""
    own = model.state_dict()
    conversions: tuple[Callable[[], dict[str, Tensor]], ...] = (
        lambda: dict(state),
        lambda: strip_prefix(state, own),
        lambda: _by_timm(state, model),
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


def _by_torchvision(state: State, own: State) -> dict[str, Tensor]:
    for rules in _TORCHVISION:
        renamed: dict[str, Tensor] = {}
        for key, tensor in state.items():
            for pattern, replacement in rules:
                key = re.sub(pattern, replacement, key)
            renamed[key] = tensor
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
