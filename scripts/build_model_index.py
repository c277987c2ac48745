"""What geotune knows of backbones without importing their providers: names, facts, methods.

    python scripts/build_model_index.py

Builds every backbone that a provider describes, with random weights, attaches every method to it,
and writes src/geotune/backbones/model_index.json (for `geotune list`) and docs/backbones.md (the
table of backbones and methods). Needs the extras terratorch, torchgeo and rslearn. `--only NAME
...` does some again and keeps the rest, `--missing` does those for which a method has come.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import geotune
from geotune.backbones.model_info import ModelInfo
from geotune.errors import GeotuneError
from geotune.memory.tracker import to_fake
from geotune.methods.core.base import Method
from geotune.registry import BACKBONE_PROVIDERS, METHODS

ROOT = Path(__file__).parents[1]
KNOWN = ROOT / "src" / "geotune" / "backbones" / "model_index.json"
TABLE = ROOT / "docs" / "backbones.md"
TIMM = (  # one of each kind that people start from; all others are listed by name
    "vit_base_patch16_224",
    "vit_large_patch16_224",
    "vit_small_patch16_dinov3",
    "vit_large_patch16_dinov3.sat493m",
    "vit_base_patch14_reg4_dinov2",
    "swin_base_patch4_window7_224",
    "swinv2_base_window8_256",
    "convnext_base",
    "convnextv2_base",
    "resnet50",
    "efficientnet_b0",
    "beitv2_base_patch16_224",
    "eva02_base_patch14_224",
)
RGB = ("red", "green", "blue")


def described() -> dict[str, ModelInfo]:
    """Every backbone that a provider describes, by its full name."""
    found = {}
    for provider, component in BACKBONE_PROVIDERS.items():
        module = component.module()
        for name, info in getattr(module, "MODELS", {}).items():
            found[f"{provider}/{name}"] = info
    return found


def build(name: str, info: ModelInfo | None) -> geotune.Backbone:
    """The backbone with the bands it was made for."""
    bands: Any = RGB
    if info is not None and info.modalities:
        first = next(iter(info.modalities))
        bands = {first: info.modalities[first]}
    elif info is not None and info.bands:
        bands = info.bands
    return geotune.backbone(name, bands=bands, pretrained=False)


_methods_of: dict[Any, dict[str, str]] = {}  # weights of one network differ in nothing else


def methods_of(backbone: geotune.Backbone) -> dict[str, str]:
    """`works` or the reason of the refusal, for each method."""
    sizes = tuple(p.shape for p in backbone.parameters())
    alike = (type(backbone), backbone.taps, hash(sizes))
    if alike not in _methods_of:
        results = {}
        for method, component in METHODS.items():
            try:
                attached(backbone, method, component.load()())
                results[method] = "works"
            except GeotuneError as error:
                results[method] = str(error).replace(backbone.name, "{name}")
        gc.collect()
        _methods_of[alike] = results
    found = _methods_of[alike]
    return {method: result.replace("{name}", backbone.name) for method, result in found.items()}


def attached(backbone: geotune.Backbone, kind: str, method: Method) -> None:
    """Attach a method to a copy, without computing anything where that can be."""
    if kind not in ("lora", "peft", "vpt"):  # which move what they make, or try it
        try:
            with FakeTensorMode() as fake:
                geotune.attach(to_fake(backbone, fake), method)
            return
        except GeotuneError:
            raise
        except Exception:
            pass  # a model that looks at values, which fake tensors do not have
    geotune.attach(copy.deepcopy(backbone), method)


def entry(name: str, info: ModelInfo | None) -> dict[str, Any]:
    """What is known of one backbone."""
    backbone = build(name, info)
    config = getattr(backbone.model, "pretrained_cfg", None) or {}
    if info is None:
        info = ModelInfo(
            paper=str(config.get("paper_name") or ""),
            licence=str(config.get("license") or "not stated by timm"),
            weights=str(config.get("hf_hub_id") or config.get("url") or ""),
        )
    stages = [
        {"blocks": len(stage), "channels": backbone.taps[stage[-1]].channels, "stride": stride}
        for stage in backbone.stages
        for stride in [backbone.taps[stage[-1]].stride]
    ]
    return {
        "parameters": sum(p.numel() for p in backbone.parameters()),
        "taps": stages,
        "blocks_shown": bool(backbone.blocks),
        "bands": list(info.bands),
        "modalities": {key: list(value) for key, value in info.modalities.items()},
        "normalization": None
        if backbone.normalization is None
        else {
            "bands": list(backbone.normalization.bands),
            "offset": list(backbone.normalization.offset),
            "scale": list(backbone.normalization.scale),
        },
        "metadata": list(info.metadata),
        "takes": list(info.supported_options),
        "licence": info.licence,
        "paper": info.paper,
        "weights": info.weights,
        "methods": methods_of(backbone),
    }


def names() -> dict[str, list[str]]:
    """Every name that can be asked for, by provider."""
    found = {"timm": sorted({*timm.list_models(), *timm.list_models(pretrained=True)})}
    for name in described():
        provider, _, model = name.partition("/")
        found.setdefault(provider, []).append(model)
    for provider, component in BACKBONE_PROVIDERS.items():
        others = getattr(component.module(), "other_names", None)
        if others is not None:
            listed = found.setdefault(provider, [])
            listed += [name for name in others() if name not in listed]
    return found


def table(known: dict[str, Any]) -> str:
    """The page of backbones and methods."""
    lines = [
        "# Backbones and methods",
        "",
        "Written by `python scripts/build_model_index.py`, which builds every backbone below with "
        "random weights and attaches every method. `geotune list backbones NAME` shows more of "
        "each; any other timm encoder works by its name.",
        "",
        "Built with "
        + ", ".join(f"{name} {number}" for name, number in known["versions"].items())
        + ".",
        "",
    ]
    head = [
        "backbone",
        "parameters",
        "strides",
        "bands",
        "metadata",
        "methods",
        "licence of weights",
    ]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    reasons: dict[str, int] = {}
    for name, info in known["backbones"].items():
        refused = []
        for method, result in info["methods"].items():
            if result != "works":
                reason = result.replace(f"{method} on {name}: ", "").replace(name, "the model")
                refused.append(f"{method} [{reasons.setdefault(reason, len(reasons) + 1)}]")
        strides = ", ".join(f"{stage['stride']:g}" for stage in info["taps"])
        bands = ", ".join(info["modalities"]) or str(len(info["bands"]) or "any")
        row = [
            f"`{name}`",
            f"{info['parameters'] / 1e6:.1f} M",
            strides,
            bands,
            ", ".join(info["metadata"]) or "–",
            "all but " + ", ".join(refused) if refused else "all",
            info["licence"],
        ]
        lines.append("| " + " | ".join(row) + " |")
    if reasons:
        lines += ["", "Refused:", ""]
        lines += [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join(lines) + "\n"


def leave_empty() -> None:
    """No initial values: drawing them takes longer than all else, and nothing here reads them."""
    for module in (torch.nn.init, timm.layers, timm.layers.weight_init):
        for name in dir(module):
            if name.endswith("_") and "calculate" not in name and not name.startswith("_"):
                setattr(module, name, lambda tensor, *args, **kwargs: tensor)


def main() -> None:
    """See the module."""
    leave_empty()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names to do again")
    parser.add_argument("--missing", action="store_true", help="only what lacks a method")
    options = parser.parse_args()
    before = json.loads(KNOWN.read_text(encoding="utf-8")) if KNOWN.is_file() else {}
    wanted: dict[str, ModelInfo | None] = {f"timm/{name}": None for name in TIMM}
    wanted.update(described())
    known: dict[str, Any] = {
        "versions": {
            name: version(name) for name in ("torch", "timm", "terratorch", "torchgeo", "rslearn")
        },
        "names": names(),
        "backbones": dict.fromkeys(wanted),  # in this order
    }
    old = before.get("backbones", {})
    known["backbones"].update((name, old[name]) for name in wanted if name in old)
    for name, info in wanted.items():
        if options.only is not None and name not in options.only and name in old:
            continue
        if options.missing and name in old and set(old[name]["methods"]) == set(METHODS):
            continue
        try:
            known["backbones"][name] = entry(name, info)
            print(f"{name}: {known['backbones'][name]['methods']}", flush=True)
        except GeotuneError as error:
            print(f"{name}: cannot be built: {error}", flush=True)
        KNOWN.write_text(json.dumps(known, ensure_ascii=False) + "\n", encoding="utf-8")
    known["backbones"] = {name: info for name, info in known["backbones"].items() if info}
    KNOWN.write_text(json.dumps(known, ensure_ascii=False) + "\n", encoding="utf-8")
    TABLE.write_text(table(known), encoding="utf-8")


if __name__ == "__main__":
    main()
