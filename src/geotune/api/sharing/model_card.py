"""The model card: README.md with the hub's metadata, for people and for search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from geotune.adapter_config import AdapterConfig
from geotune.config.backbone_options import BackboneOptions
from geotune.hub.download import BACKBONE
from geotune.stac.fields import identifier
from geotune.stac.model_item import base_page, base_repository
from geotune.utils.licences import spdx
from geotune.utils.metric_names import metric_name, score
from geotune.utils.text import join_some, pluralize

PIPELINES = {
    "segment": "image-segmentation",
    "detect": "object-detection",
    "classify": "image-classification",
    "reconstruct": "image-feature-extraction",
}
"""The hub's names of the tasks; it has none for maps of numbers."""

PURPOSES = {
    "segment": "Segmentation of {classes}",
    "detect": "Detection of {classes}",
    "classify": "Classification of images as {classes}",
    "regress": "Regression of {quantity}",
    "density": "Density and count of objects",
    "reconstruct": "A backbone whose pretraining was continued on images without labels",
}

_MAX_CLASSES = 8


@dataclass(frozen=True)
class CardContent:
    """What a model card states.

    Attributes:
        repo: `ORG/NAME` on the hub.
        config: of the adapter.
        licence: of the model; None if it is unknown.
        run: content of `run.json`; empty for an adapter without its run.
        metrics: content of `metrics.json`, likewise.
        recipe: sections of the recipe, likewise.
        files: names of the uploaded files.
        picture: titles of the pictures of a row of `example.png`; empty without it.
        peft: why the files of HF peft are missing: empty for other methods; None if they exist.
    """

    repo: str
    config: AdapterConfig
    licence: str | None
    run: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[str] = ()
    picture: Sequence[str] = ()
    peft: str | None = ""

    @property
    def task(self) -> Mapping[str, Any]:
        """The section `task`."""
        values: Mapping[str, Any] = self.config.sections["task"]
        return values

    @property
    def splits(self) -> list[str]:
        """Splits with metrics, the test split first."""
        return [split for split in ("test", "val") if self.metrics.get(split)]

    @property
    def dataset(self) -> str:
        """The name of the data: of a published data set, or `own data`."""
        data = self.recipe.get("data", {})
        return str(data["name"]) if data.get("kind") == "named" else "own data"


def model_card(content: CardContent) -> str:
    """The text of README.md."""
    metadata = yaml.safe_dump(_metadata(content), sort_keys=False, allow_unicode=True)
    parts = [
        f"# {content.repo.partition('/')[2]}",
        _summary(content),
        _picture(content),
        _use(content),
        _input(content.config),
        _results(content),
        _data(content),
        _training(content),
        _provenance(content),
    ]
    return f"---\n{metadata}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _metadata(content: CardContent) -> dict[str, Any]:
    """The hub's metadata; keys without a value are left out."""
    method = content.config.sections["method"]["kind"]
    tags = ["geotune", "earth-observation", "remote-sensing", "geospatial", content.task["kind"]]
    base = base_repository(content.config)
    values: dict[str, Any] = {
        **_licence(content.licence),
        "library_name": "geotune",
        "base_model": base,
        "base_model_relation": "finetune" if BACKBONE in content.files else "adapter",
        "pipeline_tag": PIPELINES.get(content.task["kind"]),
        "tags": [*tags, method.partition("/")[0], *(["peft"] if content.peft is None else [])],
        "model-index": _model_index(content),
    }
    if base is None:
        del values["base_model_relation"]
    return {key: value for key, value in values.items() if value}


def _licence(licence: str | None) -> dict[str, str]:
    """The hub's fields of a licence, which has identifiers in lower case."""
    if licence is None:
        return {}
    known = spdx(licence)
    if known is not None:
        return {"license": known.lower()}
    return {"license": "other", "license_name": identifier(licence).lower()}


def _model_index(content: CardContent) -> list[dict[str, Any]]:
    kind = content.task["kind"]
    results = [
        {
            "task": {"type": PIPELINES.get(kind, "other"), "name": kind},
            "dataset": {"type": "custom", "name": content.dataset, "split": split},
            "metrics": [
                {"type": name, "name": metric_name(name), "value": round(value, 6)}
                for name, value in content.metrics[split].items()
                if isinstance(value, int | float) and value == value
            ],
        }
        for split in content.splits
    ]
    name = content.repo.partition("/")[2]
    return [{"name": name, "results": results}] if results else []


def _summary(content: CardContent) -> str:
    config, task = content.config, content.task
    classes = join_some(list(task.get("classes") or []), _MAX_CLASSES)
    purpose = PURPOSES[task["kind"]].format(classes=classes, quantity=task.get("quantity"))
    images = config.prediction.images
    sizes = () if images is None or images.pixel_m is None else images.pixel_m
    span = " to ".join(dict.fromkeys(f"{size:.3g}" for size in sizes))
    pixel = f", {span} m a pixel" if span else ""
    return (
        f"{purpose}, in images with the bands {', '.join(config.normalization.bands)}{pixel}. "
        f"Tuned from {_linked_base(config)} with the method `{config.sections['method']['kind']}` "
        f"and the decoder `{config.sections['decoder']['kind']}` of "
        "[geotune](https://github.com/geotune/geotune)."
    )


def _linked_base(config: AdapterConfig) -> str:
    page = base_page(config)
    return config.base["name"] if page is None else f"[{config.base['name']}]({page})"


def _picture(content: CardContent) -> str:
    if not content.picture:
        return ""
    return (
        "![Predictions beside their images](example.png)\n\nFrom left to right: "
        f"{', '.join(content.picture)}. Above the validation window with the best score, below "
        "that with the worst."
    )


def _use(content: CardContent) -> str:
    repo = content.repo
    if content.task["kind"] == "reconstruct":
        start = f"--from hub:{repo}"
        if BACKBONE in content.files:
            name = content.config.base["name"]
            start = f"backbone.name={name} backbone.weights=hub:{repo}"
        return f"## Use\n\n```bash\npip install geotune\ngeotune fit recipe.yaml {start}\n```"
    text = (
        f"## Use\n\n```bash\npip install geotune\n"
        f"geotune predict hub:{repo} scenes/*.tif --out maps\n```\n\n"
        f'```python\nimport geotune\n\nmodel = geotune.load_adapter("hub:{repo}")\n'
        "prediction = model(pixels)  # (C, H, W) as in the files, NaN where there is no data\n"
        "```\n\nAppend `@COMMIT` to the name to pin a version. Files are compared with "
        "`manifest.json`, and the backbone with the fingerprint of its weights; no code of this "
        "repository is executed."
    )
    weights = content.config.sections["backbone"].get("weights")
    if weights is not None and weights != BACKBONE and not str(weights).startswith("hub:"):
        text += f" The backbone's weights are not included: give `{weights}` with `--weights`."
    return text + _peft_use(content)


def _peft_use(content: CardContent) -> str:
    if content.peft is None:
        return (
            "\n\nThe backbone alone, with its LoRA, for HF peft (without the decoder and the "
            "normalisation):\n\n```python\nimport geotune\nfrom peft import PeftModel\n\n"
            f"backbone = geotune.backbone({_backbone_arguments(content)})\n"
            f'model = PeftModel.from_pretrained(backbone.model, "{content.repo}")\n```'
        )
    if content.peft:
        return f"\n\nThere are no files for HF peft: {content.peft}."
    return ""


def _backbone_arguments(content: CardContent) -> str:
    """The arguments of `geotune.backbone` for the backbone of the adapter."""
    section = dict(content.config.sections["backbone"])
    if section.get("weights") == BACKBONE:
        section["weights"] = f"hub:{content.repo}"
    defaults = BackboneOptions(name=section["name"]).model_dump(mode="json")
    options = [
        f"{key}={section[key]!r}"
        for key, default in defaults.items()
        if key not in ("name", "bands") and section.get(key, default) != default
    ]
    bands = list(content.config.normalization.bands)
    return ", ".join([repr(section["name"]), f"bands={bands!r}", *options])


def _input(config: AdapterConfig) -> str:
    normalization, settings = config.normalization, config.prediction
    rows = [
        f"| {band} | {offset:g} | {scale:g} |"
        for band, offset, scale in zip(
            normalization.bands, normalization.offset, normalization.scale, strict=True
        )
    ]
    resolution = settings.resolution_m
    resampled = "" if resolution is None else f", resampled to {resolution:g} m a pixel"
    images = settings.images
    dtypes = f" ({', '.join(images.dtypes)})" if images is not None and images.dtypes else ""
    return (
        f"## Input\n\nWindows of {settings.window} x {settings.window} pixels{resampled}, with the "
        f"values of the files{dtypes}. geotune computes (value - offset) / scale of each "
        "band:\n\n| band | offset | scale |\n"
        "|---|---|---|\n" + "\n".join(rows)
    )


def _results(content: CardContent) -> str:
    if not content.splits:
        return ""
    names = list(dict.fromkeys(n for split in content.splits for n in content.metrics[split]))
    rows = [
        f"| {metric_name(name)} | "
        + " | ".join(score(content.metrics[split].get(name)) for split in content.splits)
        + " |"
        for name in names
    ]
    head = " | ".join({"test": "test", "val": "validation"}[split] for split in content.splits)
    note = (
        ""
        if "test" in content.splits
        else (
            "\n\nThe best epoch was selected on the validation data, so expect slightly worse "
            "scores on new images."
        )
    )
    return (
        f"## Results\n\n| metric | {head} |\n|---|{'---|' * len(content.splits)}\n"
        + "\n".join(rows)
        + note
    )


def _data(content: CardContent) -> str:
    data = content.run.get("data")
    if not data:
        return ""
    counts = [
        f"{pluralize(len(names), 'scene')} for {split}"
        for split, names in data["parts"].items()
        if names
    ]
    text = f"## Data\n\nTrained on {content.dataset}: {', '.join(counts)}."
    extent = data.get("extent") or {}
    if extent.get("bbox"):
        west, south, east, north = extent["bbox"]
        text += (
            f" The training scenes lie between {west:.2f} and {east:.2f} degrees of longitude and "
            f"{south:.2f} and {north:.2f} degrees of latitude."
        )
    if extent.get("start"):
        text += f" They were taken from {extent['start']} to {extent['end']}."
    return text


def _training(content: CardContent) -> str:
    run = content.run
    if not run:
        return ""
    sections = {
        name: {key: value for key, value in content.recipe[name].items() if key not in _PATHS}
        for name in ("method", "decoder", "task", "train")
        if name in content.recipe
    }
    sections["method"] = content.config.sections["method"]
    text = yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)
    return (
        f"## Training\n\n{run['trained_parameters']:,} of {run['total_parameters']:,} parameters "
        f"were trained in {pluralize(run['epochs'], 'epoch')} on {run['device']}, the best was "
        f"epoch {run['best_epoch']}.\n\n```yaml\n{text}```"
    )


_PATHS = ("run", "start_from", "cache_folder", "cache_limit")


def _provenance(content: CardContent) -> str:
    base, run = content.config.base, content.run
    lines = [
        f"- backbone: {_linked_base(content.config)}, from {base['source']}, fingerprint "
        f"`{base['fingerprint']}`",
        f"- licence of the backbone's weights: {base['licence']}",
        f"- geotune {content.config.geotune}"
        + (f", commit `{run['commit']}`" if run.get("commit") else "")
        + (f", on {run['created']}" if run.get("created") else ""),
    ]
    described = "; `card.json` is a STAC item" if "card.json" in content.files else ""
    lines.append(f"- files: {', '.join(f'`{name}`' for name in content.files)}{described}")
    return "## Provenance\n\n" + "\n".join(lines)
