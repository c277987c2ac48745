"""Descriptions of all components for `geotune list`; imports only the registry and options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from geotune.config import DataSection, OptionsModel
from geotune.datasets.base import expected_layout
from geotune.datasets.registry import DATASETS, get_dataset_info
from geotune.registry import BACKBONE_PROVIDERS, DECODERS, METHODS, TASKS

Row = dict[str, str]
Details = tuple[dict[str, Any], list[tuple[str, str]]]
"""JSON-compatible values, and (label, text) pairs for display."""

Category = Literal["backbones", "methods", "decoders", "tasks", "datasets"]


def list_components(category: Category) -> list[Row]:
    """One row per component; all rows have the same keys, `name` first."""
    if category == "backbones":
        return _backbones()
    if category == "datasets":
        kinds = get_args(get_args(DataSection)[0])
        return [_row(kind) for kind in kinds] + _published_datasets()
    registry = {"methods": METHODS, "decoders": DECODERS, "tasks": TASKS}[category]
    return [_row(component.load_options()) for component in registry.values()]


def _row(options: type[OptionsModel]) -> Row:
    """The description is the first line of the options' docstring."""
    fields = options.model_fields
    backbones = getattr(options, "fits", None)
    return {
        "name": fields["kind"].default,
        "description": (options.__doc__ or "").partition("\n")[0].rstrip("."),
        **({"backbones": backbones} if backbones else {}),
        "options": ", ".join(name for name in fields if name != "kind"),
    }


def _published_datasets() -> list[Row]:
    return [
        {
            "name": info.name,
            "description": info.title,
            "options": f"task.kind={info.task}; {len(info.bands)} bands; "
            f"{len(info.classes)} classes; {info.licence}",
        }
        for info in map(get_dataset_info, DATASETS)
    ]


def _backbones() -> list[Row]:
    index = _model_index()
    rows = []
    for provider, models in index["names"].items():
        for name in (f"{provider}/{model}" for model in models):
            info = index["backbones"].get(name)
            rows.append(
                {
                    "name": name,
                    "parameters": f"{info['parameters'] / 1e6:.1f} M" if info else "",
                    "bands": _bands(info) if info else "",
                    "requires": BACKBONE_PROVIDERS[provider].requires,
                }
            )
    return rows


def describe(category: Category, name: str) -> Details | None:
    """Details of a backbone or a published data set by its full name; None for other names."""
    if category == "datasets" and name in DATASETS:
        return _describe_dataset(name)
    info = backbone_info(name) if category == "backbones" else None
    return None if info is None else ({"name": name, **info}, _backbone_pairs(name, info))


def _describe_dataset(name: str) -> Details:
    info = get_dataset_info(name)
    pairs = [
        ("name", info.name),
        ("description", info.title),
        ("task", info.task + (", horizontal or oriented boxes" if info.oriented else "")),
        ("classes", "; ".join(info.classes)),
        ("bands", ", ".join(info.bands)),
        ("window", f"{info.window} pixels"),
        ("pixel size", f"{info.gsd_m:g} m" if info.gsd_m else "varies between images"),
        ("splits", ", ".join(info.splits) or "none published"),
        ("licence", info.licence),
        ("paper", info.paper),
        ("source", info.source),
        ("files", "".join(f"\n{line}" for line in expected_layout(info))),
        ("note", info.note),
    ]
    values = {**asdict(info), "splits": list(info.splits)}
    return values, [(label, text) for label, text in pairs if text]


def backbone_info(name: str) -> dict[str, Any] | None:
    """The entry of a backbone in the model index; None if only its name is known, or not even that.

    The index is written by `scripts/build_model_index.py`, so no provider is imported.
    """
    info: dict[str, Any] | None = _model_index()["backbones"].get(name)
    return info


def _backbone_pairs(name: str, info: Mapping[str, Any]) -> list[tuple[str, str]]:
    taps = [
        f"{stage['blocks']} blocks with {stage['channels']} channels at stride {stage['stride']:g}"
        for stage in info["taps"]
    ]
    normalization = "none published; computed from the training data"
    if info["normalization"] is not None:
        columns = zip(*info["normalization"].values(), strict=True)
        normalization = ", ".join(f"{b} (x - {o:.6g}) / {s:.6g}" for b, o, s in columns)
    methods = info["methods"]
    return [
        ("name", name),
        ("parameters", f"{info['parameters']:,}"),
        ("taps", "; ".join(taps)),
        ("bands", _bands(info)),
        ("normalisation", normalization),
        ("metadata", ", ".join(info["metadata"]) or "none"),
        ("options", ", ".join(info["options"]) or "none"),
        ("licence", info["licence"]),
        ("paper", info["paper"] or "not stated"),
        ("weights", info["weights"] or "none published"),
        ("methods", ", ".join(method for method, result in methods.items() if result == "works")),
        *((f"not {m}", reason) for m, reason in methods.items() if reason != "works"),
    ]


def _bands(info: Mapping[str, Any]) -> str:
    if info["modalities"]:
        return "; ".join(f"{name}: {', '.join(m)}" for name, m in info["modalities"].items())
    return ", ".join(info["bands"]) or "any"


@cache
def _model_index() -> dict[str, Any]:
    text = files("geotune.backbones").joinpath("model_index.json").read_text(encoding="utf-8")
    index: dict[str, Any] = json.loads(text)
    return index
