"""A recipe: one YAML file that says what is trained, on what, and how.

Every section is a pydantic model; a field has the name of the constructor parameter that it
feeds (`build.py` turns sections into objects). Nothing heavy is imported here.
"""

from geotune.recipe.data import Data
from geotune.recipe.decoders import Decoder
from geotune.recipe.methods import Method
from geotune.recipe.reading import (
    apply_override,
    dump_recipe,
    parse_recipe,
    parse_sections,
    read_recipe,
)
from geotune.recipe.section import RecipeError, Section
from geotune.recipe.sections import Backbone, Recipe, Sections
from geotune.recipe.size import parse_size
from geotune.recipe.splits import Split
from geotune.recipe.tasks import Task
from geotune.recipe.train import Train

__all__ = [
    "Backbone",
    "Data",
    "Decoder",
    "Method",
    "Recipe",
    "RecipeError",
    "Section",
    "Sections",
    "Split",
    "Task",
    "Train",
    "apply_override",
    "dump_recipe",
    "parse_recipe",
    "parse_sections",
    "parse_size",
    "read_recipe",
]
