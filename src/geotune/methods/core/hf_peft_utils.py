"""Shared by the methods that use HF peft: injection and merging."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import MethodOptions
from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.fused_qkv import join_all_qkv
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import freeze, mark_inserted
from geotune.methods.core.target_layers import peft_layers

_ADAPTER_NAME = "default"


def inject_adapter(backbone: Backbone, config: Any, method: str) -> None:
    """Apply a peft configuration to the layers that it targets; freeze everything else.

    Calls the tuner's class itself: peft's `inject_adapter_in_model` rejects tuners whose layers
    share tensors, because peft cannot save them; geotune saves all tensors by itself. Raises
    `GeotuneError`, and restores the backbone, if the tuner does not fit.
    """
    from peft import PEFT_TYPE_TO_TUNER_MAPPING

    trainable = [p for p in backbone.parameters() if p.requires_grad]
    freeze(backbone)
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    try:
        with warnings.catch_warnings():
            # peft only warns when it ignores an option
            warnings.filterwarnings("error", message="Invalid `oft|The symmetric initialization")
            tuner(backbone.model, config, adapter_name=_ADAPTER_NAME)
    except Exception as error:
        _restore_base_layers(backbone.model, peft_layers(backbone.model))
        for parameter in trainable:
            parameter.requires_grad_(True)
        join_all_qkv(backbone.model)
        raise GeotuneError(
            f"{method} on {backbone.name}: does not fit ({error}); change method.rank, "
            "method.options or method.targets, or choose another method",
            code="method-option-invalid",
            key="method.options",
        ) from error
    for layer in peft_layers(backbone.model).values():
        layer.geotune_inserted = True  # type: ignore[assignment]  # some read their training mode
        for name, child in layer.named_children():
            if name != "base_layer":
                mark_inserted(child)


def build_encoder(
    backbone: Backbone, name: str, method: MethodOptions, *, mergeable: bool = True
) -> Encoder:
    """Build the encoder after `inject_adapter`; raises `GeotuneError` for dead layers."""
    try:
        return checked_encoder(backbone, method, name=name, merge=_merge if mergeable else None)
    except RuntimeError as error:
        raise GeotuneError(
            f"{name} on {backbone.name}: its layers fail in the forward pass ({error}); choose "
            "other layers with method.targets, or another method",
            code="method-unsupported",
            key="method.targets",
        ) from error


def _merge(model: nn.Module) -> None:
    """Fold each update into its base layer and restore the base layers."""
    layers: dict[str, Any] = peft_layers(model)
    try:
        for layer in layers.values():
            copy.deepcopy(layer).merge(safe_merge=True)  # fails before anything has changed
    except Exception as error:
        raise GeotuneError(
            f"cannot be merged: {error}", code="merge-unsupported", key="method.kind"
        ) from error
    for layer in layers.values():
        layer.merge(safe_merge=True)
    _restore_base_layers(model, layers)
    join_all_qkv(model)


def _restore_base_layers(model: nn.Module, layers: Mapping[str, Any]) -> None:
    for name, layer in layers.items():
        model.set_submodule(name, layer.get_base_layer())
