"""What `geotune list` shows, from the registry and the options; imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from geotune.config import DataSection, OptionsModel
from geotune.datasets.base import expected_layout
from geotune.datasets.registry import DATASETS as NAMED
from geotune.datasets.registry import get_dataset_info
from geotune.registry import BACKBONE_PROVIDERS, DECODERS, METHODS, TASKS, Component

Row = dict[str, str]


def list_components(
    what: Literal["backbones", "methods", "decoders", "tasks", "datasets"],
) -> list[Row]:
    """Rows with the same keys, `name` first."""
    if what == "backbones":
        return _backbones()
    if what == "methods":
        return [{**_row(m), "fits": m.fits, "options": _keys(m)} for m in _options(METHODS)]
    if what == "decoders":
        return [{**_row(m), "options": _keys(m)} for m in _options(DECODERS)]
    if what == "tasks":
        return [{**_row(m), "options": _keys(m)} for m in _options(TASKS)]
    kinds = get_args(get_args(DataSection)[0])
    return [{**_row(m), "options": _keys(m)} for m in kinds] + _named()


def _options(components: Mapping[str, Component]) -> list[Any]:
    return [component.load_options() for component in components.values()]


def _row(options: type[OptionsModel]) -> Row:
    """Name and description; the description is the first line of the options' docstring."""
    title = (options.__doc__ or "").partition("\n")[0].rstrip(".")
    return {"name": options.model_fields["kind"].default, "is": title}


def _keys(options: type[OptionsModel]) -> str:
    return ", ".join(name for name in options.model_fields if name != "kind")


def _named() -> list[Row]:
    return [
        {
            "name": about.name,
            "is": about.title,
            "options": f"task.kind={about.task}; {len(about.bands)} bands; "
            f"{len(about.classes)} classes; {about.licence}",
        }
        for about in map(get_dataset_info, NAMED)
    ]


def dataset_facts(name: str) -> dict[str, Any]:
    """What is known of a named data set."""
    about = get_dataset_info(name)
    return {**asdict(about), "splits": list(about.splits)}


def dataset_rows(name: str) -> list[tuple[str, str]]:
    """The same for people, as pairs of a word and what it says."""
    about = get_dataset_info(name)
    rows = [
        ("name", about.name),
        ("is", about.title),
        ("task", about.task + (", horizontal or oriented boxes" if about.oriented else "")),
        ("classes", "; ".join(about.classes)),
        ("bands", ", ".join(about.bands)),
        ("window", f"{about.window} pixels"),
        ("metres a pixel", f"{about.gsd_m:g}" if about.gsd_m else "not the same in all images"),
        ("splits", ", ".join(about.splits) or "none is published"),
        ("licence", about.licence),
        ("paper", about.paper),
        ("from", about.source),
        ("files", "".join(f"\n{line}" for line in expected_layout(about))),
        ("note", about.note),
    ]
    return [(word, text) for word, text in rows if text]


def _backbones() -> list[Row]:
    known = _known()
    rows = []
    for provider, names in known["names"].items():
        for name in (f"{provider}/{model}" for model in names):
            facts = known["backbones"].get(name)
            rows.append(
                {
                    "name": name,
                    "parameters": f"{facts['parameters'] / 1e6:.1f} M" if facts else "",
                    "bands": _bands(facts) if facts else "",
                    "needs": BACKBONE_PROVIDERS[provider].requires,
                }
            )
    return rows


def describe(what: str, name: str) -> tuple[dict[str, Any], list[tuple[str, str]]] | None:
    """All that is known of one backbone or named data set: values, and pairs for people.

    None for what is no whole name.
    """
    if what == "datasets" and name in NAMED:
        return dataset_facts(name), dataset_rows(name)
    facts = backbone_facts(name) if what == "backbones" else None
    return None if facts is None else ({"name": name, **facts}, backbone_rows(name, facts))


def backbone_facts(name: str) -> dict[str, Any] | None:
    """What is known of a backbone by its full name; None for a name that is only a name."""
    facts: dict[str, Any] | None = _known()["backbones"].get(name)
    return facts


def backbone_rows(name: str, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The same for people, as pairs of a word and what it says."""
    stages = [
        f"{stage['blocks']} of {stage['channels']} channels at stride {stage['stride']:g}"
        for stage in facts["taps"]
    ]
    rows = [
        ("name", name),
        ("parameters", f"{facts['parameters']:,}"),
        ("taps", "; ".join(stages)),
        ("bands", _bands(facts)),
    ]
    normalization = facts["normalization"]
    if normalization is not None:
        rows.append(
            (
                "normalisation",
                ", ".join(
                    f"{band} (x - {offset:.6g}) / {scale:.6g}"
                    for band, offset, scale in zip(*normalization.values(), strict=True)
                ),
            )
        )
    else:
        rows.append(("normalisation", "none is published: that of the training data is used"))
    methods = facts["methods"]
    rows += [
        ("metadata", ", ".join(facts["metadata"]) or "none"),
        ("options", ", ".join(facts["takes"]) or "none"),
        ("licence", facts["licence"]),
        ("paper", facts["paper"] or "not stated"),
        ("weights", facts["weights"] or "none are published"),
        ("methods", ", ".join(method for method, result in methods.items() if result == "works")),
    ]
    return rows + [(f"not {m}", reason) for m, reason in methods.items() if reason != "works"]


def _bands(facts: Mapping[str, Any]) -> str:
    if facts["modalities"]:
        return "; ".join(f"{name}: {', '.join(m)}" for name, m in facts["modalities"].items())
    return ", ".join(facts["bands"]) or "any"


@cache
def _known() -> dict[str, Any]:
    """What `scripts/build_model_index.py` wrote; no provider is imported."""
    text = files("geotune.backbones").joinpath("model_index.json").read_text(encoding="utf-8")
    known: dict[str, Any] = json.loads(text)
    return known
