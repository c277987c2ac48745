"""The metadata by which Deepness, a plugin of QGIS, sets itself up, as version 0.6.5 reads them.

Deepness passes tiles of one raster to an ONNX model with one input `(B, C, S, S)`. It divides all
values by 255 and standardises them; a mean of 0 and a standard deviation of 1 / 255 cancel this, so
that the model gets the raw values.
"""

from __future__ import annotations

import json
from typing import Any

from geotune.errors import GeotuneError
from geotune.export_formats.metadata import Exported

MODEL_TYPES = {"classes": "Segmentor", "values": "Regressor", "objects": "Detector"}
"""Deepness's kinds of model, by `Task.output_kind`."""
OVERLAP_PERCENT = 15
"""Overlap of neighbouring tiles; Deepness's own default."""


def check_deepness(exported: Exported) -> None:
    """Raise `GeotuneError` if Deepness cannot run the model."""
    model = exported.model
    backbone = model.model.encoder.backbone
    problem = ""
    if model.task.output_kind not in MODEL_TYPES:
        problem = (
            "it predicts one value or class for a whole image; Deepness draws maps and objects"
        )
    elif backbone.timesteps > 1:
        problem = f"it takes {backbone.timesteps} dates of a scene; Deepness reads one raster"
    elif backbone.metadata:
        problem = f"it takes the {' and '.join(backbone.metadata)}; Deepness passes pixels only"
    elif exported.any_size:
        problem = "Deepness needs tiles of one size; remove --any-size"
    if problem:
        raise GeotuneError(
            f"--to deepness: {problem}; use --to onnx, or geotune predict",
            code="export-unsupported",
        )


def deepness_properties(exported: Exported) -> dict[str, str]:
    """Keys and JSON values of the ONNX file."""
    model, bands = exported.model, len(exported.config.normalization.bands)
    kind = model.task.output_kind
    values: dict[str, Any] = {
        "model_type": MODEL_TYPES[kind],
        "class_names": {str(i): name for i, name in enumerate(exported.classes)},
        "tile_size": exported.window,
        "tiles_size": exported.window,
        "tiles_overlap": OVERLAP_PERCENT,
        "standardization_mean": [0.0] * bands,
        "standardization_std": [1 / 255] * bands,
    }
    if exported.gsd_m is not None:
        values["resolution"] = round(100 * exported.gsd_m, 4)
    if kind == "classes":
        values |= {"seg_thresh": 0.0, "seg_small_segment": 0}
    elif kind == "values":
        values["reg_output_scaling"] = 1.0
    else:
        decoder: Any = model.model.decoder
        thresholds = exported.config.prediction.score_thresholds.values()
        known = [value for value in thresholds if value is not None]
        values |= {
            "det_type": "YOLO_Ultralytics_obb" if decoder.oriented else "YOLO_Ultralytics",
            "det_conf": round(min(known, default=decoder.postprocess.score_threshold), 4),
            "det_iou_thresh": decoder.postprocess.nms_threshold,
        }
    return {key: json.dumps(value) for key, value in values.items()}
