"""Build the index of backbones, which `geotune list` reads without importing their providers.

    python scripts/build_model_index.py

Builds every backbone that a provider describes, with random weights, attaches every method to it,
and writes `src/geotune/backbones/model_index.json` and `docs/reference/backbones.md`. Needs the
extras terratorch, torchgeo and rslearn. `--only NAME ...` rebuilds some entries and keeps the
others; `--missing` attaches only the methods that an entry lacks.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import textwrap
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
INDEX = ROOT / "src" / "geotune" / "backbones" / "model_index.json"
PAGE = ROOT / "docs" / "reference" / "backbones.md"
TIMM = (  # common models of each family; others are listed by name only
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
WIDTH = 100
RGB = ("red", "green", "blue")


def provider_models() -> dict[str, ModelInfo]:
    """Models that a provider describes, by full name."""
    models = {}
    for provider, component in BACKBONE_PROVIDERS.items():
        module = component.module()
        for name, info in getattr(module, "MODELS", {}).items():
            models[f"{provider}/{name}"] = info
    return models


def build(name: str, info: ModelInfo | None) -> geotune.Backbone:
    """Build a backbone with the bands of its pretraining."""
    bands: Any = RGB
    if info is not None and info.modalities:
        first = next(iter(info.modalities))
        bands = {first: info.modalities[first]}
    elif info is not None and info.bands:
        bands = info.bands
    return geotune.backbone(name, bands=bands, pretrained=False)


_cache: dict[Any, str] = {}  # by network and method: weights make no difference


def supported_methods(backbone: geotune.Backbone, known: dict[str, str]) -> dict[str, str]:
    """For each method `works`, or why it does not support the backbone; `known` are kept."""
    sizes = tuple(p.shape for p in backbone.parameters())
    results = {}
    for method, component in METHODS.items():
        if method in known:
            results[method] = known[method]
            continue
        key = (type(backbone), backbone.taps, hash(sizes), method)
        if key not in _cache:
            try:
                attach_to_copy(backbone, method, component.load()())
                _cache[key] = "works"
            except GeotuneError as error:
                _cache[key] = str(error).replace(backbone.name, "{name}")
            gc.collect()
        results[method] = _cache[key].replace("{name}", backbone.name)
    return results


def attach_to_copy(backbone: geotune.Backbone, kind: str, method: Method) -> None:
    """Attach a method to a copy, on fake tensors if possible."""
    if kind not in ("lora", "peft", "vpt"):  # these move or run modules
        try:
            with FakeTensorMode() as fake:
                geotune.attach(to_fake(backbone, fake), method)
            return
        except GeotuneError:
            raise
        except Exception:
            pass  # the model reads values, which fake tensors do not have
    real = copy.deepcopy(backbone)
    for parameter in real.parameters():  # uninitialised memory may hold numbers that are not finite
        if parameter.is_floating_point():
            parameter.data.normal_(std=0.02)
    geotune.attach(real, method)


def index_entry(name: str, info: ModelInfo | None, known_methods: dict[str, str]) -> dict[str, Any]:
    """The entry of one backbone; methods that are known are not attached."""
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
        "blocks_accessible": bool(backbone.blocks),
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
        "options": list(info.supported_options),
        "licence": info.licence,
        "paper": info.paper,
        "weights": info.weights,
        "methods": supported_methods(backbone, known_methods),
    }


def names() -> dict[str, list[str]]:
    """All supported names, by provider."""
    names_of = {"timm": sorted({*timm.list_models(), *timm.list_models(pretrained=True)})}
    for name in provider_models():
        provider, _, model = name.partition("/")
        names_of.setdefault(provider, []).append(model)
    for provider, component in BACKBONE_PROVIDERS.items():
        others = getattr(component.module(), "other_names", None)
        if others is not None:
            listed = names_of.setdefault(provider, [])
            listed += [name for name in others() if name not in listed]
    return names_of


def render_page(index: dict[str, Any]) -> str:
    """The page `docs/reference/backbones.md`."""
    lines = [
        "# Backbones and methods",
        "",
        textwrap.fill(
            "Generated by `python scripts/build_model_index.py`, which builds each backbone below "
            "with random weights and attaches every method to it. `geotune list backbones NAME` "
            "shows details. Every other timm encoder can be used by its name.",
            WIDTH,
        ),
        "",
        "Built with "
        + ", ".join(f"{name} {number}" for name, number in index["versions"].items())
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
    for name, info in index["backbones"].items():
        unsupported = []
        for method, result in info["methods"].items():
            if result != "works":
                reason = result.replace(f"{method} on {name}: ", "").replace(name, "the model")
                unsupported.append(f"{method} [{reasons.setdefault(reason, len(reasons) + 1)}]")
        strides = ", ".join(f"{stage['stride']:g}" for stage in info["taps"])
        bands = ", ".join(info["modalities"]) or str(len(info["bands"]) or "any")
        row = [
            f"`{name}`",
            f"{info['parameters'] / 1e6:.1f} M",
            strides,
            bands,
            ", ".join(info["metadata"]) or "–",
            "all but " + ", ".join(unsupported) if unsupported else "all",
            info["licence"],
        ]
        lines.append("| " + " | ".join(row) + " |")
    if reasons:
        lines += ["", "Reasons why a method does not support a backbone:", ""]
        for reason, number in reasons.items():
            indent = " " * len(f"{number}. ")
            item = f"{number}. {reason}"
            lines.append(
                textwrap.fill(item, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
            )
    return "\n".join(lines) + "\n"


def disable_init() -> None:
    """Disable initialisation of weights, which takes most of the time; values are not used here."""
    for module in (torch.nn.init, timm.layers, timm.layers.weight_init):
        for name in dir(module):
            if name.endswith("_") and "calculate" not in name and not name.startswith("_"):
                setattr(module, name, lambda tensor, *args, **kwargs: tensor)


def main() -> None:
    """Run the command."""
    disable_init()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names to rebuild")
    parser.add_argument("--missing", action="store_true", help="attach only methods that lack")
    options = parser.parse_args()
    before = json.loads(INDEX.read_text(encoding="utf-8")) if INDEX.is_file() else {}
    models: dict[str, ModelInfo | None] = {f"timm/{name}": None for name in TIMM}
    models.update(provider_models())
    index: dict[str, Any] = {
        "versions": {
            name: version(name) for name in ("torch", "timm", "terratorch", "torchgeo", "rslearn")
        },
        "names": names(),
        "backbones": dict.fromkeys(models),  # in this order
    }
    old = before.get("backbones", {})
    index["backbones"].update((name, old[name]) for name in models if name in old)
    for name, info in models.items():
        if options.only is not None and name not in options.only and name in old:
            continue
        known = old[name]["methods"] if options.missing and name in old else {}
        if set(known) == set(METHODS):
            continue
        try:
            index["backbones"][name] = index_entry(name, info, known)
            print(f"{name}: {index['backbones'][name]['methods']}", flush=True)
        except GeotuneError as error:
            print(f"{name}: cannot be built: {error}", flush=True)
        INDEX.write_text(json.dumps(index, ensure_ascii=False) + "\n", encoding="utf-8")
    index["backbones"] = {name: info for name, info in index["backbones"].items() if info}
    INDEX.write_text(json.dumps(index, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(render_page(index), encoding="utf-8")


if __name__ == "__main__":
    main()
