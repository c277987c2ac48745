"""Recipes and options: pydantic models that the recipe and the constructors share.

A recipe is a YAML file; each of its sections is validated by an options class, which is also what
the constructor takes. Imports nothing heavy.
"""

from geotune.config.backbone_options import BackboneOptions
from geotune.config.base import OptionsModel
from geotune.config.data_options import DataSection
from geotune.config.decoder_options import DecoderSection
from geotune.config.loader import (
    apply_override,
    apply_overrides,
    dump_recipe,
    load_recipe,
    parse_recipe,
    parse_sections,
)
from geotune.config.method_options import MethodSection
from geotune.config.schema import ModelSections, Recipe
from geotune.config.split_options import SplitSection
from geotune.config.task_options import TaskSection
from geotune.config.train_options import TrainOptions
from geotune.config.units import parse_size

__all__ = [
    "BackboneOptions",
    "DataSection",
    "DecoderSection",
    "MethodSection",
    "ModelSections",
    "OptionsModel",
    "Recipe",
    "SplitSection",
    "TaskSection",
    "TrainOptions",
    "apply_override",
    "apply_overrides",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
    "parse_sections",
    "parse_size",
]
