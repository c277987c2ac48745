"""From a YAML file and overrides to a checked recipe, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from geotune.config.base import OptionsModel
from geotune.config.error_messages import recipe_error
from geotune.config.schema import ModelSections, Recipe
from geotune.errors import RecipeError

Parsed = TypeVar("Parsed", bound=OptionsModel)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, list[str]]:
    """Read a recipe and apply `key=value` overrides.

    Returns the recipe and the notes a user should see (such as keys that a new `kind` dropped).
    Raises `RecipeError` for a file that cannot be read, an unknown key or a wrong value.
    """
    values = read_values(path, "a recipe", "backbone")
    notes: list[str] = []
    for override in overrides:
        notes += apply_override(values, override)
    return parse_recipe(values, str(path)), notes


def read_values(path: Path, what: str, section: str) -> dict[str, Any]:
    """The sections of a YAML file, as plain values.

    `what` should be there and a `section` that it would have are for the messages. Raises
    `RecipeError` for a file that cannot be read or has no sections.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); give {what} file") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is no text file; give {what} in YAML") from error
    try:
        values = _load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is no valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(
            f"{path}: found {type(values).__name__}, expected sections such as {section}:"
        )
    return values


class _Loader(yaml.SafeLoader):
    """YAML in which a key may stand only once in its section."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)


def apply_override(values: dict[str, Any], override: str) -> list[str]:
    """Set one `key=value` in a recipe's values; a new `kind` starts its section anew."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise RecipeError(f"{override!r}: expected key=value, such as train.epochs=5")
    parts = key.split(".")
    try:
        value = _load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{override!r}: the value is no valid YAML: {error}") from error
    section = values
    for depth, part in enumerate(parts[:-1]):
        if not isinstance(section.setdefault(part, {}), dict):
            raise RecipeError(
                f"{override!r}: {'.'.join(parts[: depth + 1])} is a value and has no keys below it"
            )
        section = section[part]
    if parts[-1] == "kind" and section.get("kind", value) != value:
        dropped = [name for name in section if name != "kind"]
        section.clear()
        section["kind"] = value
        if dropped:
            here = ".".join(parts[:-1])
            return [
                f"{override} starts the section anew; dropped from the file: "
                + ", ".join(f"{here}.{name}" for name in dropped)
            ]
        return []
    section[parts[-1]] = value
    return []


def parse_recipe(values: dict[str, Any], source: str = "recipe") -> Recipe:
    """Check a recipe's values. Raises `RecipeError` that lists every fault with its full path."""
    return parse(Recipe, values, source)


def parse_sections(values: dict[str, Any], source: str) -> ModelSections:
    """Check the sections that describe a model, as `parse_recipe` checks all."""
    return parse(ModelSections, values, source)


def parse(model: type[Parsed], values: dict[str, Any], source: str) -> Parsed:
    """Check the values of a section. Raises `RecipeError` that lists every fault."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise recipe_error(error, model, values, source) from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as resolved, as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
