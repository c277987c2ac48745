r"""Write LoRA in the layout of HF peft, which `PeftModel.from_pretrained` opens.

peft wraps the layers of the plain backbone. geotune splits a fused layer of queries, keys and
values, and adapts queries and values separately; both are one update of the fused layer:

    [B_q A_q]   [B_q   0 ]
    [   0   ] = [ 0    0 ] [A_q]        rank 2 r, and alpha 2 alpha for the same factor alpha / r
    [B_v A_v]   [ 0   B_v] [A_v]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geotune.adapter_config import AdapterConfig
from geotune.adapter_io import save_tensors
from geotune.backbones.create import build_backbone
from geotune.config import parse_sections
from geotune.methods.core.fused_qkv import QkvLayout, qkv_layout
from geotune.stac.model_item import base_repository
from geotune.utils.text import join_some

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "encoder.backbone.model."
_DOWN, _UP = ".lora_A.default.weight", ".lora_B.default.weight"

Update = tuple[Tensor, Tensor]
"""The factors `A` `(r, ...)` and `B` `(outputs, r, ...)`."""


def write_peft(folder: Path, config: AdapterConfig, state: Mapping[str, Tensor]) -> str | None:
    """Write `adapter_config.json` and `adapter_model.safetensors`, if the method is LoRA.

    Returns why they were not written: empty for another method; None if they were.
    """
    method = config.sections["method"]
    kind = method["kind"] if method["kind"] == "lora" else method.get("tuner", "")
    if method["kind"] not in ("lora", "peft") or kind not in ("lora", "rslora"):
        return ""
    if reason := _unsuitable(config, state):
        return reason
    updates = _updates(state)
    sections = parse_sections(config.sections, str(folder))
    options = sections.backbone.model_copy(update={"weights": None, "pretrained": False})
    model = build_backbone(options, config.normalization.bands).model
    layers, scales = _fused(model, updates)
    unknown = sorted(layers.keys() - {name for name, _ in model.named_modules()})
    if unknown:
        return f"the plain backbone has no layers {join_some(unknown, 3)}"
    _write(folder, config, layers, scales, rslora=kind == "rslora")
    return None


def _unsuitable(config: AdapterConfig, state: Mapping[str, Tensor]) -> str:
    """Why peft could not give the same features; empty if it can."""
    method = config.sections["method"]
    if config.sections["backbone"]["name"].startswith("python/"):
        return "the backbone is a Python file"
    if method.get("frozen_precision", "fp32") != "fp32":
        return f"the frozen weights were rounded to {method['frozen_precision']}"
    options = sorted((method.get("options") or {}).keys() - {"lora_alpha", "lora_dropout"})
    if options:
        return f"the update has other options: {join_some(options, 3)}"
    others = [
        name
        for name in state
        if name.startswith("encoder.backbone.") and not name.endswith((_DOWN, _UP))
    ]
    return f"other tensors of the backbone were trained: {join_some(others, 3)}" if others else ""


def _updates(state: Mapping[str, Tensor]) -> dict[str, Update]:
    """The factors of each layer, by its name inside the backbone's model."""
    return {
        name.removeprefix(_PREFIX).removesuffix(_DOWN): (down, state[name.replace(_DOWN, _UP)])
        for name, down in state.items()
        if name.startswith(_PREFIX) and name.endswith(_DOWN)
    }


def _fused(
    model: nn.Module, updates: Mapping[str, Update]
) -> tuple[dict[str, Update], dict[str, int]]:
    """The updates of the plain model's layers, and the number of parts of each fused layer."""
    known = dict(model.named_modules())
    layers: dict[str, Update] = {}
    parts: dict[str, dict[str, Update]] = {}
    for name, update in updates.items():
        parent, _, part = name.rpartition(".")
        if name not in known and parent in known and qkv_layout(model, parent) is not None:
            parts.setdefault(parent, {})[part] = update
        else:
            layers[name] = update
    for name, each in parts.items():
        layout = qkv_layout(model, name)
        assert layout is not None
        layers[name] = _join(layout, each)
    return layers, {name: len(each) for name, each in parts.items()}


def _join(layout: QkvLayout, parts: Mapping[str, Update]) -> Update:
    """One update of a fused layer from those of its queries, keys and values."""
    downs = [down for down, _ in parts.values()]
    total = sum(len(down) for down in downs)
    rows, start = {}, 0
    for name, (down, up) in parts.items():
        wide = up.new_zeros(len(up), total, *up.shape[2:])
        wide[:, start : start + len(down)] = up
        rows[name], start = wide, start + len(down)
    like = next(iter(rows.values()))
    blocks = [
        rows.get(name, like.new_zeros(layout.groups * width, *like.shape[1:]))
        for name, width in zip("qkv", layout.widths, strict=True)
        if width
    ]
    return torch.cat(downs), layout.join(blocks)


def _write(
    folder: Path,
    config: AdapterConfig,
    layers: Mapping[str, Update],
    parts: Mapping[str, int],
    *,
    rslora: bool,
) -> None:
    from peft import LoraConfig

    method: dict[str, Any] = config.sections["method"]
    options = method.get("options") or {}
    alpha = float(method.get("alpha") or options.get("lora_alpha", 16))
    plain = [len(down) for name, (down, _) in layers.items() if name not in parts]
    ranks = {name: len(down) for name, (down, _) in layers.items() if name in parts}
    rank = plain[0] if plain else next(iter(ranks.values()))
    factor = math.sqrt if rslora else float
    written = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=sorted(layers),
        rank_pattern=ranks,
        alpha_pattern={name: alpha * factor(count) for name, count in parts.items()},
        use_rslora=rslora,
        lora_dropout=float(method.get("dropout") or options.get("lora_dropout", 0)),
        base_model_name_or_path=base_repository(config) or config.base["name"],
        inference_mode=True,
    )
    written.save_pretrained(str(folder))
    tensors = {
        f"base_model.model.{name}.lora_{letter}.weight": tensor
        for name, update in layers.items()
        for letter, tensor in zip("AB", update, strict=True)
    }
    save_tensors(folder / TENSORS, tensors, {"format": "pt"})
