"""What an exported file says about itself, as JSON: inputs, outputs, classes, provenance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geotune.adapter_config import AdapterConfig
from geotune.export_formats.exported_model import ExportedModel
from geotune.tasks.detect import Detect

FORMAT = 1

OUTPUTS = {
    "probabilities": "of the classes, in their order",
    "values": "in the unit of the labels",
    "boxes": "x and y of two corners in pixels",
    "points": "x and y in pixels",
    "scores": "0 to 1",
    "classes": "index of the class",
    "image": "index of the image in the batch",
    "detections": "centre x and y, width, height, score of each class, in pixels",
}
ORIENTED = "centre x and y, long side, short side in pixels, angle in radians from x to y"


@dataclass(frozen=True)
class Exported:
    """What is exported, with what its users have to know.

    Attributes:
        model: the module.
        config: of the adapter.
        window: height and width of the images.
        any_size: images of any size are accepted.
        precision: of the weights: `fp32`, `fp16` or `int8`.
    """

    model: ExportedModel
    config: AdapterConfig
    window: int
    any_size: bool
    precision: str

    @property
    def merged(self) -> bool:
        """Whether the method was folded into the backbone's weights."""
        return self.model.model.encoder.merged

    @property
    def gsd_m(self) -> float | None:
        """Pixel size of the images in metres; None if it is unknown."""
        settings = self.config.prediction
        if settings.resolution_m is not None:
            return settings.resolution_m
        sizes = None if settings.images is None else settings.images.pixel_m
        return None if sizes is None else float((sizes[0] * sizes[1]) ** 0.5)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, or of the quantity."""
        return tuple(self.model.task.classes)

    def input_shapes(self) -> dict[str, list[int | str]]:
        """The shape of each input, with names of dimensions that may vary."""
        backbone = self.model.model.encoder.backbone
        dates = [backbone.timesteps] if backbone.timesteps > 1 else []
        sides: list[int | str] = ["height", "width"] if self.any_size else [self.window] * 2
        shapes: dict[str, list[int | str]] = {
            "images": ["batch", len(backbone.bands), *dates, *sides],
            "time": ["batch", backbone.timesteps, 2],
            "location": ["batch", 2],
        }
        return {name: shapes[name] for name in self.model.input_names}


def describe(exported: Exported, version: str) -> dict[str, Any]:
    """The description, JSON-compatible; `version` is geotune's."""
    config, model = exported.config, exported.model
    settings, task = config.prediction, config.sections["task"]
    normalization = config.normalization
    images = {
        "bands": list(normalization.bands),
        "missing": [
            "NaN",
            *([] if model.nodata is None or math.isnan(model.nodata) else [model.nodata]),
        ],
        "gsd_m": exported.gsd_m,
        "normalization": "inside the model: (x - offset) / scale",
        "offset": list(normalization.offset),
        "scale": list(normalization.scale),
    }
    about: dict[str, dict[str, Any]] = {
        "images": images,
        "time": {"meaning": "year and day of the year, 1 to 366, of each date"},
        "location": {"meaning": "longitude and latitude of the centre in degrees"},
    }
    described: dict[str, Any] = {
        "format": FORMAT,
        "geotune": version,
        "task": task,
        "classes": list(exported.classes),
        "inputs": {
            name: {"shape": shape, **about[name]} for name, shape in exported.input_shapes().items()
        },
        "outputs": {name: _meaning(name, model) for name in model.output_names},
        "precision": exported.precision,
        "method": config.sections["method"].get("kind"),
        "merged": exported.merged,
        "backbone": config.base,
        "adapter_hash": config.hash,
        "trained_with": config.geotune,
    }
    if isinstance(model.task, Detect):
        postprocess: Any = model.model.decoder.postprocess
        described["detection"] = {
            "score_thresholds": settings.score_thresholds,
            "lowest_score": postprocess.score_threshold,
            "nms": not (model.layout == "yolo" or model.task.boxes == "oriented"),
            "nms_iou": postprocess.nms_threshold,
            "max_detections": postprocess.max_detections,
        }
    thresholds = {one.name: one.threshold for one in settings.class_thresholds}
    if thresholds:
        described["class_thresholds"] = thresholds
    return described


def _meaning(name: str, model: ExportedModel) -> str:
    oriented = isinstance(model.task, Detect) and model.task.boxes == "oriented"
    if oriented and name == "boxes":
        return ORIENTED
    if oriented and name == "detections":
        return f"{OUTPUTS[name]}; last the angle in radians from x to y"
    return OUTPUTS[name]
