"""A recipe: one YAML file that says what is trained, on what, and how.

Every section is a pydantic model; a field has the name of the constructor parameter that it
feeds (`build.py` turns sections into objects). Nothing heavy is imported here.
"""

from geotune.config.base import OptionsModel
from geotune.config.data_options import DataSection
from geotune.config.decoder_options import DecoderSection
from geotune.config.loader import (
    apply_override,
    dump_recipe,
    load_recipe,
    parse_recipe,
    parse_sections,
)
from geotune.config.method_options import MethodSection
from geotune.config.schema import BackboneOptions, ModelSections, Recipe
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
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
    "parse_sections",
    "parse_size",
]
