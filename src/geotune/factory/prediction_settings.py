"""What an adapter stores for predictions besides the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from geotune.adapter_config import ClassThreshold, PredictionSettings, TrainingImages
from geotune.config import Recipe
from geotune.factory.open_data import declared_bands_nodata, quality_options, resolution_m


def prediction_settings(
    recipe: Recipe,
    details: Mapping[str, Any],
    images: TrainingImages | None = None,
    novelty: str | None = None,
) -> PredictionSettings:
    """What predictions of a recipe's model depend on besides the model.

    Args:
        recipe: as it was trained, with its window.
        details: of the validation metrics, with the thresholds.
        images: of the training.
        novelty: hash of the statistics of training features.
    """
    window = recipe.data.window
    assert window is not None  # derived from the images
    bands, nodata = declared_bands_nodata(recipe.data)
    quality = quality_options(recipe)
    return PredictionSettings(
        window=window,
        resolution_m=resolution_m(recipe),
        bands=bands,
        nodata=nodata,
        quality=quality and quality.model_copy(update={"pattern": ""}),
        score_thresholds=dict(details.get("threshold", {})),
        class_thresholds=[_class_threshold(one) for one in details.get("class_thresholds", ())],
        images=images,
        novelty=novelty,
    )


def _class_threshold(chosen: Mapping[str, Any]) -> ClassThreshold:
    usual = chosen["iou_most_likely"]
    return ClassThreshold(
        name=chosen["class"],
        threshold=chosen["threshold"],
        iou=chosen["iou"],
        iou_most_likely=None if math.isnan(usual) else usual,
    )
