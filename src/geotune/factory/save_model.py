"""Save the adapter of a built model, so that `load_adapter` builds it again."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from geotune.adapter_config import PredictionSettings
from geotune.adapter_io import adapter_state, save_adapter
from geotune.config import Recipe
from geotune.factory.build_model import BuiltModel, adapter_sections
from geotune.factory.prediction_settings import prediction_settings


def save_model(
    folder: Path, built: BuiltModel, recipe: Recipe, prediction: PredictionSettings | None = None
) -> int:
    """Write the adapter's files atomically.

    Args:
        folder: for the files.
        built: the model.
        recipe: that it was built from.
        prediction: how scenes are predicted; by default what the recipe says.

    Returns the size of the tensors' file in bytes.
    """
    return save_adapter(
        folder,
        adapter_state(built.model),
        backbone=built.backbone,
        normalization=built.normalization,
        sections=adapter_sections(recipe),
        prediction=prediction_settings(recipe, {}) if prediction is None else prediction,
        version=version("geotune"),
    )
