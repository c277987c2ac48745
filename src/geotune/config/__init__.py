"""A recipe: one YAML file that says what is trained, on what, and how.

Every section is a pydantic model; a field has the name of the constructor parameter that it
feeds (`build.py` turns sections into objects). Nothing heavy is imported here.
"""

from geotune.config.base import OptionsModel
from geotune.config.data_options import Data
from geotune.config.decoder_options import Decoder
from geotune.config.loader import (
    apply_override,
    dump_recipe,
    load_recipe,
    parse_recipe,
    parse_sections,
)
from geotune.config.method_options import MethodSection
from geotune.config.schema import Backbone, ModelSections, Recipe
from geotune.config.sizes import parse_size
from geotune.config.split_options import Split
from geotune.config.task_options import Task
from geotune.config.train_options import Train

__all__ = [
    "Backbone",
    "Data",
    "Decoder",
    "MethodSection",
    "ModelSections",
    "OptionsModel",
    "Recipe",
    "Split",
    "Task",
    "Train",
    "apply_override",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
    "parse_sections",
    "parse_size",
]
