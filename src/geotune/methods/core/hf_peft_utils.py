"""What the methods that stand on HF peft share: which layers, what is put around them, merging."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import check_trainable, probe_loss
from geotune.methods.core.injection import freeze, inserted
from geotune.methods.core.reader import SelectedFeatures

_ATTENTION_AND_MLP = ("qkv", "q", "v", "q_proj", "v_proj", "query", "value", "fc1", "fc2")
_ADAPTER = "default"

Layer = nn.Linear | nn.Conv2d


def target_layers(
    backbone: Backbone,
    targets: list[str] | None,
    *,
    method: str,
    convolutions: bool = True,
    rank: int | None = None,
) -> dict[str, Layer]:
    """The layers to adapt, by their names inside `backbone.model`.

    `targets` are the last parts of their names; by default query, value and both layers of the
    MLP, all linear layers of the blocks where those have other names, and convolutions where
    there are none, without those that lie behind the last map that is handed on. Raises
    `GeotuneError` where nothing fits, where an adapter around a layer could not change the output,
    and where a layer is narrower than `rank`.
    """
    if _tuner_layers(backbone.model):
        raise GeotuneError(
            f"{method} on {backbone.name}: it carries layers of peft already; build the backbone "
            "anew"
        )
    names = {module: name for name, module in backbone.model.named_modules()}
    layers = {
        names[layer]: layer
        for block in backbone.blocks or [backbone.model]
        for layer in block.modules()
        if isinstance(layer, Layer) and "rel_pos" not in names[layer]  # positions, not features
    }
    if targets is not None:
        chosen = [name for name in layers if any(_ends(name, target) for target in targets)]
        unknown = [t for t in targets if not any(_ends(name, t) for name in layers)]
        if unknown or not chosen:
            ends = sorted({name.rsplit(".", 1)[-1] for name in layers})
            raise GeotuneError(
                f"method.targets {', '.join(unknown)}: no layer of {backbone.name} is called so; "
                f"it has {', '.join(ends)}"
            )
        other = [name for name in chosen if not convolutions and _is_convolution(layers[name])]
        if other:
            raise GeotuneError(
                f"method.targets {', '.join(targets)}: {other[0]} of {backbone.name} is a "
                f"convolution, and {method} works on linear layers; name those"
            )
        idle = _unused(backbone, {name: layers[name] for name in chosen})
        _refuse(backbone, method, idle.unused, "no map that is handed on depends on them")
    else:
        fit = {
            n: layer for n, layer in layers.items() if convolutions or not _is_convolution(layer)
        }
        idle = _unused(backbone, fit)
        fit = {name: layer for name, layer in fit.items() if name not in idle.unused}
        chosen = (
            [name for name in fit if _is_usual(name)]
            or [name for name, layer in fit.items() if not _is_convolution(layer)]
            or [
                name
                for name, layer in fit.items()
                if _is_plain(layer) and _width(layer) >= (rank or 1)
            ]
        )
    if not chosen:
        kinds = "linear layer or plain convolution" if convolutions else "linear layer"
        raise GeotuneError(
            f"{method} on {backbone.name}: found no {kinds} to adapt in its blocks; name layers "
            "with method.targets or choose another method"
        )
    read = [name for name in chosen if name in idle.read]
    _refuse(backbone, method, read, "the model reads their weights without calling them")
    for name in chosen:
        widest = _width(layers[name])
        if rank is not None and rank > widest:
            raise GeotuneError(
                f"method.rank {rank}: {name} of {backbone.name} is only {widest} wide; "
                f"choose at most {widest}"
            )
    return {name: layers[name] for name in chosen}


def inject_adapter(backbone: Backbone, config: Any, method: str) -> None:
    """Put the tuner of a peft config around the layers that it names; freeze everything else.

    The tuner's own class is called, as peft's `inject_adapter_in_model` refuses those whose layers
    share tensors, for peft's way of saving; ours finds every tensor by itself. Raises
    `GeotuneError`, and leaves the backbone as it was, where the tuner does not fit.
    """
    from peft import PEFT_TYPE_TO_TUNER_MAPPING

    trained = [p for p in backbone.parameters() if p.requires_grad]
    freeze(backbone)
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    try:
        with warnings.catch_warnings():
            # where peft warns that it does otherwise than it was asked
            warnings.filterwarnings("error", message="Invalid `oft|The symmetric initialization")
            tuner(backbone.model, config, adapter_name=_ADAPTER)
    except Exception as error:
        _take_out(backbone.model, _tuner_layers(backbone.model))
        for parameter in trained:
            parameter.requires_grad_(True)
        raise GeotuneError(
            f"{method} on {backbone.name}: does not fit ({error}); change method.options or "
            "method.targets, or choose another method"
        ) from error
    for layer in _tuner_layers(backbone.model).values():
        layer.geotune_inserted = True  # type: ignore[assignment]  # some ask for their mode
        for name, part in layer.named_children():
            if name != "base_layer":
                inserted(part)


def build_encoder(backbone: Backbone, name: str, method: Method, *, merges: bool = True) -> Encoder:
    """The encoder of a backbone with a tuner's layers; raises `GeotuneError` for dead ones."""
    merges = merges and method.frozen_precision == "fp32"  # an update is lost in fewer bits
    encoder = _encoder(backbone, method, merge=_merge if merges else None)
    try:
        return check_trainable(encoder, name)
    except RuntimeError as error:
        raise GeotuneError(
            f"{name} on {backbone.name}: its layers cannot compute ({error}); choose other "
            "layers with method.targets, or another method"
        ) from error


def _encoder(backbone: Backbone, method: Method | None = None, **options: Any) -> Encoder:
    levels = SelectedFeatures(backbone)
    return Encoder(backbone, levels, method, backbone_frozen=False, **options)


class _Idle(NamedTuple):
    """Names of layers that cannot change the output by being called.

    Attributes:
        read: their owner reads their weights.
        unused: nothing depends on their weights, either: they lie behind the last map.
    """

    read: list[str]
    unused: list[str]


def _unused(backbone: Backbone, layers: dict[str, Layer]) -> _Idle:
    """Which of the layers an adapter around them would be dead in.

    Looked for before anything is put in: a tuner may share one parameter among all its layers,
    and the gradient of that tells of none of them.
    """
    encoder = _encoder(backbone)
    device = next(backbone.parameters()).device
    zeros = {name: torch.zeros((), device=device, requires_grad=True) for name in layers}

    def add(zero: Tensor) -> Any:
        return lambda _module, _inputs, output: output + zero.to(output.dtype)

    hooks = [layer.register_forward_hook(add(zeros[name])) for name, layer in layers.items()]
    silent = _without_gradient(encoder, zeros)
    for hook in hooks:
        hook.remove()
    weights = {name: layers[name].weight for name in silent}
    frozen = [weight for weight in weights.values() if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    unused = _without_gradient(encoder, weights)
    for weight in frozen:
        weight.requires_grad_(False)
    return _Idle([name for name in silent if name not in unused], unused)


def _without_gradient(encoder: Encoder, tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of those that the maps do not depend on."""
    if not tensors:
        return []
    total = probe_loss(encoder)
    if not total.requires_grad:
        return list(tensors)
    gradients = torch.autograd.grad(total, list(tensors.values()), allow_unused=True)
    return [name for name, grad in zip(tensors, gradients, strict=True) if grad is None]


def _refuse(backbone: Backbone, method: str, layers: list[str], reason: str) -> None:
    if layers:
        raise GeotuneError(
            f"{method} on {backbone.name}: {len(layers)} layers cannot change the output, because "
            f"{reason}: {', '.join(layers[:8])}{' ...' if len(layers) > 8 else ''}; choose other "
            "layers with method.targets, or another method"
        )


def _merge(model: nn.Module) -> None:
    """Fold each update into the layer it belongs to, and put the plain layer back in its place."""
    layers: dict[str, Any] = _tuner_layers(model)
    try:
        for layer in layers.values():
            copy.deepcopy(layer).merge(safe_merge=True)  # fails before anything has changed
    except Exception as error:
        raise GeotuneError(f"cannot be merged: {error}") from error
    for layer in layers.values():
        layer.merge(safe_merge=True)
    _take_out(model, layers)


def _take_out(model: nn.Module, layers: dict[str, Any]) -> None:
    for name, layer in layers.items():
        model.set_submodule(name, _base(layer))


def _tuner_layers(model: nn.Module) -> dict[str, nn.Module]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layer: Any = BaseTunerLayer  # which is no module by its type
    return {name: module for name, module in model.named_modules() if isinstance(module, layer)}


def _base(layer: Any) -> Any:
    return layer.get_base_layer()


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _is_usual(name: str) -> bool:
    """Whether a layer is of attention or MLP by its name, or stands in a row called `mlp`."""
    *_, parent, last = ("", "", *name.split("."))
    return last in _ATTENTION_AND_MLP or parent == "mlp"


def _is_convolution(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d)


def _is_plain(layer: Layer) -> bool:
    """Whether all inputs of a convolution meet, side by side: others have no low rank in peft."""
    return isinstance(layer, nn.Linear) or (layer.groups == 1 and layer.dilation == (1, 1))


def _width(layer: Layer) -> int:
    """The smaller of a layer's inputs and outputs: no update can have a higher rank."""
    return min(layer.weight.shape[0], layer.weight.shape[1])
