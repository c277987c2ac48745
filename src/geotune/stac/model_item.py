"""The STAC item of a trained model, with the machine-learning-model extension (MLM 1.5.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geotune.adapter_config import ADAPTER_CONFIG, TENSORS, AdapterConfig
from geotune.backbones.bands import canonical_band, wavelength_um
from geotune.stac import fields
from geotune.utils.licences import spdx_or_other

TASKS = {
    "segment": "semantic-segmentation",
    "detect": "object-detection",
    "classify": "scene-classification",
    "regress": "regression",
    "density": "regression",
}
"""The extension's names of the tasks."""

COMMON_NAMES = {
    **{"B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge071"},
    **{"B06": "rededge075", "B07": "rededge078", "B08": "nir", "B8A": "nir08", "B09": "nir09"},
    **{"B10": "cirrus", "B11": "swir16", "B12": "swir22"},
}
"""STAC's common names by the names of Sentinel-2."""

BATCH_SIZE = 8
"""The default of geotune predict."""

ASSETS: dict[str, tuple[str, dict[str, Any]]] = {
    "model": (
        TENSORS,
        {
            "title": "Trained tensors",
            "type": "application/octet-stream; framework=safetensors",
            "roles": ["mlm:model", "mlm:weights", "model", "weights"],
            "mlm:artifact_type": "safetensors.torch.save_file",
        },
    ),
    "config": (
        ADAPTER_CONFIG,
        {
            "title": "Backbone, method, decoder, task and normalisation",
            "type": fields.JSON,
            "roles": ["metadata"],
        },
    ),
    "backbone": (
        "backbone.safetensors",
        {
            "title": "Weights of the backbone",
            "type": "application/octet-stream; framework=safetensors",
            "roles": ["mlm:weights", "weights"],
        },
    ),
    "report": (
        "report.html",
        {"title": "Report of the training", "type": "text/html", "roles": ["metadata", "overview"]},
    ),
    "metrics": (
        "metrics.json",
        {"title": "Metrics", "type": fields.JSON, "roles": ["metadata"]},
    ),
}
"""Files of a run, and how the item describes them."""

SOURCE_CODE = {
    "href": "https://github.com/geotune/geotune",
    "title": "geotune",
    "type": "text/html",
    "roles": ["mlm:source_code", "code"],
    "mlm:entrypoint": "geotune:load_adapter",
}


def model_item(
    name: str,
    config: AdapterConfig,
    hrefs: Mapping[str, str],
    created: str,
    run: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The STAC item of a model.

    Args:
        name: of the run.
        config: of the adapter.
        hrefs: references to the files that exist, by name.
        created: when the model was made, as an ISO time in UTC.
        run: the content of `run.json`, if there is one.
        metrics: the content of `metrics.json`, likewise.
        recipe: the sections of the recipe, likewise.
    """
    run = run or {}
    sections, settings = config.sections, config.prediction
    task = sections["task"]
    extent = run.get("data", {}).get("extent") or {}
    random = config.base["source"] == "random weights"
    properties = {
        **fields.times(extent, fields.utc(created)),
        "created": fields.utc(created),
        "title": name,
        "description": _description(config),
        "license": spdx_or_other(config.base["licence"]),
        "bands": [_band(band, config) for band in config.normalization.bands],
        "mlm:name": f"geotune {fields.identifier(name)} model",
        "mlm:architecture": _architecture(config),
        "mlm:tasks": [TASKS[task["kind"]]],
        "mlm:framework": "PyTorch",
        **_framework_version(run),
        "mlm:pretrained": not random,
        "mlm:pretrained_source": None if random else config.base["source"],
        "mlm:batch_size_suggestion": BATCH_SIZE,
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:input": _inputs(config),
        "mlm:output": [_output(config)],
        "mlm:hyperparameters": _hyperparameters(recipe or sections),
    }
    if "total_parameters" in run:
        properties["mlm:total_parameters"] = run["total_parameters"]
    if "device" in run:
        properties["mlm:accelerator_summary"] = f"trained on {run['device']}"
    if settings.images is not None and settings.images.pixel_m is not None:
        properties["gsd"] = settings.resolution_m or settings.images.pixel_m[0]
    if metrics:
        splits = {split: metrics[split] for split in ("val", "test") if split in metrics}
        properties["geotune:metrics"] = splits
    assets = {
        key: {"href": hrefs[file], **described}
        for key, (file, described) in ASSETS.items()
        if file in hrefs
    }
    # STAC allows bands among the properties only if an asset has some, too
    assets["model"]["bands"] = [{"name": band} for band in config.normalization.bands]
    assets["source_code"] = SOURCE_CODE
    return fields.item(
        name,
        extent,
        properties,
        extensions=[fields.MLM, fields.EO, fields.CLASSIFICATION],
        assets=assets,
        links=_links(config),
    )


def _description(config: AdapterConfig) -> str:
    sections = config.sections
    return (
        f"{config.base['name']}, tuned with geotune {config.geotune}: method "
        f"{sections['method']['kind']}, decoder {sections['decoder']['kind']}. The model asset "
        "holds the trained tensors; geotune loads them with the weights of the backbone."
    )


def _architecture(config: AdapterConfig) -> str:
    model = Path(config.base["name"]).name
    return f"{model}, {config.sections['method']['kind']}, {config.sections['decoder']['kind']}"


def _framework_version(run: Mapping[str, Any]) -> dict[str, str]:
    version = str(run.get("versions", {}).get("torch", "")).partition("+")[0]
    return {"mlm:framework_version": version} if re.fullmatch(r"\d+\.\d+\.\d+", version) else {}


def _band(name: str, config: AdapterConfig) -> dict[str, Any]:
    """A band with its common name and wavelength, if they are known."""
    canonical = canonical_band(name)
    wavelength = (config.sections["backbone"].get("wavelengths") or {}).get(name)
    wavelength = wavelength or wavelength_um(name)
    known = {
        "eo:common_name": COMMON_NAMES.get(canonical),
        "eo:center_wavelength": wavelength,
    }
    return {"name": name, **{key: value for key, value in known.items() if value is not None}}


def _inputs(config: AdapterConfig) -> list[dict[str, Any]]:
    """The images, and the date and place if the model takes them."""
    normalization, window = config.normalization, config.prediction.window
    bands, dates = list(normalization.bands), config.sections["backbone"].get("timesteps", 1)
    time = [dates] if dates > 1 else []
    resolution = config.prediction.resolution_m
    images = {
        "name": "images",
        "description": "Windows in the units of the files, NaN where there is no data"
        + (f", resampled to {resolution:g} m a pixel" if resolution else "")
        + "; windows of other sizes are accepted. geotune scales the values itself.",
        "bands": bands,
        "input": {
            "shape": [-1, len(bands), *time, window, window],
            "dim_order": ["batch", "bands", *(["time"] if time else []), "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": offset, "stddev": scale}
            for offset, scale in zip(normalization.offset, normalization.scale, strict=True)
        ],
        "resize_type": None,
        "pre_processing_function": None,
    }
    return [images, *(_metadata_input(name, dates) for name in config.metadata)]


def _metadata_input(name: str, dates: int) -> dict[str, Any]:
    of_dates = name == "time"
    return {
        "name": name,
        "description": "year and day of the year of each date"
        if of_dates
        else "longitude and latitude of the window's centre in degrees",
        "bands": [],
        "input": {
            "shape": [-1, dates, 2] if of_dates else [-1, 2],
            "dim_order": ["batch", "time", "value"] if of_dates else ["batch", "coordinate"],
            "data_type": "float32",
        },
        "value_scaling": None,
    }


def _output(config: AdapterConfig) -> dict[str, Any]:
    """What the model gives after its post-processing."""
    task, window = config.sections["task"], config.prediction.window
    kind, classes = task["kind"], list(task.get("classes") or [])
    unit = task.get("unit") or "the unit of the labels"
    values = 7 if task.get("boxes") == "oriented" else 4 if task.get("boxes") == "points" else 6
    of_image = kind == "classify" or task.get("level") == "image"
    place, names = ([], []) if of_image else ([window, window], ["height", "width"])
    described: dict[str, tuple[str, str, list[int], list[str]]] = {
        "segment": ("probabilities", "of the classes", [len(classes), *place], ["class", *names]),
        "classify": ("probabilities", "of the classes", [len(classes)], ["class"]),
        "detect": (
            "objects",
            "boxes or points in pixels, score and class",
            [-1, values],
            ["object", "value"],
        ),
        "regress": (str(task.get("quantity")), f"in {unit}", [1, *place], ["value", *names]),
        "density": ("density", "objects in each pixel", [1, *place], ["value", *names]),
    }
    name, text, shape, order = described[kind]
    output: dict[str, Any] = {
        "name": name,
        "description": f"{name}: {text}",
        "tasks": [TASKS[kind]],
        "result": {
            "shape": [-1, *shape],
            "dim_order": ["batch", *order],
            "data_type": "float32",
        },
        "bands": [],
        "post_processing_function": None,
    }
    if classes:
        output["classification:classes"] = fields.class_objects(classes)
    return output


def _hyperparameters(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Options of method, decoder, task and training as `method.rank` and so on; no paths."""
    values = {
        f"{section}.{key}": value
        for section in ("method", "decoder", "task", "train")
        for key, value in sections.get(section, {}).items()
        if value is not None and key not in ("classes", "run", "start_from", "cache_folder")
    }
    kind = str(values.get("method.kind", ""))
    if kind.startswith("python/"):
        values["method.kind"] = f"python/{Path(kind).name}"
    return {fields.identifier(key): value for key, value in values.items()}


def _links(config: AdapterConfig) -> list[dict[str, Any]]:
    href = base_page(config)
    if href is None:
        return []
    return [{"rel": "derived_from", "href": href, "title": config.base["name"]}]


def base_page(config: AdapterConfig) -> str | None:
    """The page or file that the backbone's weights come from; None if it is not on the web."""
    source = config.base["source"]
    repository = base_repository(config)
    if repository is not None:
        return f"https://huggingface.co/{repository}"
    return source if source.startswith(("https://", "http://")) else None


def base_repository(config: AdapterConfig) -> str | None:
    """`ORG/NAME` of the backbone's weights on the hub, if they come from there."""
    match = re.search(r"hub: ?([\w.-]+/[\w.-]+)", config.base["source"])
    return match[1] if match else None
