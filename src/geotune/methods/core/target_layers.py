"""Select the layers of a backbone that a method updates, and find those that it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.fused_qkv import qkv_layout, split_qkv
from geotune.methods.core.gradient_check import probe_loss
from geotune.methods.core.injection import is_inserted
from geotune.methods.core.method_errors import option_error
from geotune.methods.core.reader import SelectedFeatures
from geotune.utils.text import join_some, pluralize

_ATTENTION_AND_MLP = ("qkv", "q", "v", "q_proj", "v_proj", "query", "value", "fc1", "fc2")
_POSITIONS = ("rel_pos", "cpb_mlp")
"""In names of layers that encode positions."""

Layer = nn.Linear | nn.Conv2d


def target_layers(
    backbone: Backbone,
    targets: list[str] | None,
    *,
    method: str,
    convolutions: bool = True,
    all_linear: bool = False,
    rank: int | None = None,
) -> dict[str, Layer]:
    """Select the layers to adapt, by their names inside `backbone.model`.

    `targets` are the last parts of layer names. By default: query, value and both layers of the
    MLP (a fused `qkv` is split, so that keys are not adapted); if no layer has such a name, or with
    `all_linear`, all linear layers of the blocks; if there are none, convolutions; always without
    layers that no output depends on. Raises `GeotuneError` if nothing
    matches, if an adapter around a layer could not change the output, and if a layer is narrower
    than `rank`.
    """
    if peft_layers(backbone.model) or any(is_inserted(module) for module in backbone.modules()):
        raise GeotuneError(
            f"{method} on {backbone.name}: another method has changed this backbone's layers; "
            "build it again",
            code="backbone-already-adapted",
            key="method.kind",
        )
    layers = layers_in_blocks(backbone)
    if targets is not None:
        selected = [name for name in layers if any(_matches(name, target) for target in targets)]
        unknown = [t for t in targets if not any(_matches(name, t) for name in layers)]
        if unknown or not selected:
            known = sorted({name.rsplit(".", 1)[-1] for name in layers})
            problem = f"{backbone.name} has no layer of that name; it has {', '.join(known)}"
            raise option_error("targets", ", ".join(unknown), problem)
        unsupported = [
            name for name in selected if not convolutions and _is_convolution(layers[name])
        ]
        if unsupported:
            raise option_error(
                "targets",
                ", ".join(targets),
                f"{unsupported[0]} of {backbone.name} is a convolution, but {method} needs linear "
                "layers; choose linear layers",
            )
        dead = _find_dead_layers(backbone, {name: layers[name] for name in selected})
        _raise_if_dead(backbone, method, dead.unused, "no output depends on them")
    else:
        candidates = {
            name: layer
            for name, layer in layers.items()
            if convolutions or not _is_convolution(layer)
        }
        dead = _find_dead_layers(backbone, candidates)
        candidates = {n: layer for n, layer in candidates.items() if n not in dead.unused}
        selected = (
            [name for name in candidates if not all_linear and _is_attention_or_mlp(name)]
            or [name for name, layer in candidates.items() if not _is_convolution(layer)]
            or [
                name
                for name, layer in candidates.items()
                if _is_dense(layer) and _max_rank(layer) >= (rank or 1)
            ]
        )
    if not selected:
        kinds = "linear layer or dense convolution" if convolutions else "linear layer"
        raise GeotuneError(
            f"{method} on {backbone.name}: found no {kinds} to adapt in its blocks; select layers "
            "with method.targets or choose another method",
            code="method-unsupported",
            key="method.targets",
        )
    bypassed = [name for name in selected if name in dead.bypassed]
    _raise_if_dead(backbone, method, bypassed, "the model reads their weights without calling them")
    layouts = (
        {}
        if targets or all_linear
        else {name: qkv_layout(backbone.model, name) for name in selected}
    )
    for name in selected:
        outputs, inputs = layers[name].weight.shape[:2]
        layout = layouts.get(name)
        limit = min(layout.narrowest if layout else outputs, inputs)
        if rank is not None and rank > limit:
            problem = f"{name} of {backbone.name} is only {limit} wide; choose at most {limit}"
            raise option_error("rank", rank, problem)
    chosen: dict[str, Layer] = {}
    for name in selected:
        layout = layouts.get(name)
        chosen |= split_qkv(backbone.model, name, layout) if layout else {name: layers[name]}
    return chosen


def layers_in_blocks(backbone: Backbone) -> dict[str, Layer]:
    """Return all linear layers and convolutions of the blocks, by name in `backbone.model`."""
    names = {module: name for name, module in backbone.model.named_modules()}
    return {
        names[layer]: layer
        for block in backbone.blocks or [backbone.model]
        for layer in block.modules()
        if isinstance(layer, Layer) and not any(part in names[layer] for part in _POSITIONS)
    }


def without_dead_layers(backbone: Backbone, layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """Return the layers whose outputs can change the encoder's maps."""
    dead = _find_dead_layers(backbone, dict(layers))
    removed = {*dead.bypassed, *dead.unused}
    return {name: layer for name, layer in layers.items() if name not in removed}


class _DeadLayers(NamedTuple):
    """Names of layers whose output an adapter could not change.

    Attributes:
        bypassed: the model reads their weights without calling them.
        unused: no output depends on their weights: they come after the last map.
    """

    bypassed: list[str]
    unused: list[str]


def _find_dead_layers(backbone: Backbone, layers: dict[str, Layer]) -> _DeadLayers:
    """Find the layers around which an adapter would not train.

    Runs before injection: a tuner may share one parameter among all layers, whose gradient would
    hide single dead ones.
    """
    encoder = Encoder(backbone, SelectedFeatures(backbone), backbone_frozen=False)
    device = next(backbone.parameters()).device
    zeros = {name: torch.zeros((), device=device, requires_grad=True) for name in layers}

    def add(zero: Tensor) -> Any:
        return lambda _module, _inputs, output: output + zero.to(output.dtype)

    hooks = [layer.register_forward_hook(add(zeros[name])) for name, layer in layers.items()]
    not_called = _without_gradient(encoder, zeros)
    for hook in hooks:
        hook.remove()
    weights = {name: layers[name].weight for name in not_called}
    frozen = [weight for weight in weights.values() if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    unused = _without_gradient(encoder, weights)
    for weight in frozen:
        weight.requires_grad_(False)
    return _DeadLayers([name for name in not_called if name not in unused], unused)


def _without_gradient(encoder: Encoder, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that the encoder's maps do not depend on."""
    if not tensors:
        return []
    total = probe_loss(encoder)
    if not total.requires_grad:
        return list(tensors)
    gradients = torch.autograd.grad(total, list(tensors.values()), allow_unused=True)
    return [name for name, grad in zip(tensors, gradients, strict=True) if grad is None]


def _raise_if_dead(backbone: Backbone, method: str, layers: list[str], reason: str) -> None:
    if layers:
        raise GeotuneError(
            f"{method} on {backbone.name}: {pluralize(len(layers), 'layer')} cannot change the "
            f"output, because {reason}: {join_some(layers, 8)}; choose other layers with "
            "method.targets, or another method",
            code="method-layers-dead",
            key="method.targets",
        )


def peft_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that peft has changed, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layer: Any = BaseTunerLayer  # not typed as a module
    return {name: module for name, module in model.named_modules() if isinstance(module, layer)}


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _is_attention_or_mlp(name: str) -> bool:
    """Whether a layer has a usual name of attention or MLP, or is in a sequence called `mlp`."""
    *_, parent, last = ("", "", *name.split("."))
    return last in _ATTENTION_AND_MLP or parent == "mlp"


def _is_convolution(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d)


def _is_dense(layer: Layer) -> bool:
    """Whether a layer has neither groups nor dilation, for which peft has no low-rank update."""
    return isinstance(layer, nn.Linear) or (layer.groups == 1 and layer.dilation == (1, 1))


def _max_rank(layer: Layer) -> int:
    """The smaller of a layer's inputs and outputs."""
    return min(layer.weight.shape[0], layer.weight.shape[1])
