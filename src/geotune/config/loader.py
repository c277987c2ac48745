"""Read recipes from YAML files and overrides, and write them."""

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
from geotune.utils.text import similar_names

Parsed = TypeVar("Parsed", bound=OptionsModel)
YAML = (".yaml", ".yml")


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, list[str]]:
    """Read a recipe and apply `key=value` overrides.

    Returns the recipe and notes for the user, such as keys that a new `kind` removed. Raises
    `RecipeError` for an unreadable file, an unknown key or an invalid value.
    """
    values = read_values(path, "a recipe", "backbone")
    notes = apply_overrides(values, overrides)
    return parse_recipe(values, str(path)), notes


def read_values(path: Path, what: str, section: str) -> dict[str, Any]:
    """Read a YAML file of sections, as plain values.

    `what` the file should be and one `section` that it would have are used in messages. Raises
    `RecipeError` for a file that cannot be read or has no sections.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); expected {what} file{_similar_file(path)}"
    except UnicodeDecodeError:
        problem = f"not a text file; expected {what} in YAML"
    else:
        try:
            values = _load_yaml(text)
        except yaml.YAMLError as error:
            problem = f"invalid YAML: {error}"
        else:
            if isinstance(values, dict):
                return values
            problem = f"found {type(values).__name__}, expected sections such as {section}:"
    raise RecipeError(f"{path}: {problem}", code="recipe-unreadable", file=path)


def _similar_file(path: Path) -> str:
    """A hint at a YAML file of a similar name in the same folder."""
    if path.exists():
        return ""
    folder = path.parent
    files = [p for p in folder.iterdir() if p.suffix in YAML] if folder.is_dir() else []
    by_stem = {p.stem: p for p in sorted(files)}
    near = similar_names(path.stem, by_stem, cutoff=0.7)
    return f"; did you mean {by_stem[near[0]]}?" if near else ""


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key may occur only once in its section."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Apply `key=value` overrides in any order: whole sections first, then kinds, then other keys.

    Thus a kind does not remove what is set with it. Returns notes about removed keys.
    """

    def order(override: str) -> tuple[bool, int]:
        parts = override.partition("=")[0].split(".")
        resets = len(parts) == 1 or parts[-1] == "kind"
        return not resets, len(parts) if resets else 0

    return [
        note
        for override in sorted(overrides, key=order)
        for note in apply_override(values, override)
    ]


def apply_override(values: dict[str, Any], override: str) -> list[str]:
    """Set one `key=value` in a recipe's values; a new `kind` clears the rest of its section.

    Returns notes about removed keys. Raises `RecipeError` for an invalid override.
    """
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise RecipeError(
            f"{override!r}: expected key=value, such as train.epochs=5", code="recipe-override"
        )
    parts = key.split(".")
    try:
        value = _load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"{override!r}: the value is not valid YAML: {error}", code="recipe-override", key=key
        ) from error
    section = values
    for depth, part in enumerate(parts[:-1]):
        if section.get(part) is None:  # an optional section
            section[part] = {}
        if not isinstance(section[part], dict):
            parent = ".".join(parts[: depth + 1])
            raise RecipeError(
                f"{override!r}: {parent} is a value, not a section",
                code="recipe-override",
                key=parent,
            )
        section = section[part]
    if parts[-1] == "kind" and section.get("kind", value) != value:
        removed = [".".join([*parts[:-1], name]) for name in section if name != "kind"]
        section.clear()
        section["kind"] = value
        if removed:
            return [f"{override} resets the section; removed: {', '.join(removed)}"]
        return []
    section[parts[-1]] = value
    return []


def parse_recipe(values: dict[str, Any], source: str = "recipe") -> Recipe:
    """Validate a recipe. Raises `RecipeError` that lists every problem with its full key."""
    return parse(Recipe, values, source)


def parse_sections(values: dict[str, Any], source: str) -> ModelSections:
    """Validate the sections of a model; raises as `parse_recipe` does."""
    return parse(ModelSections, values, source)


def parse(model: type[Parsed], values: dict[str, Any], source: str) -> Parsed:
    """Validate values; raises as `parse_recipe` does."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise recipe_error(error, model, values, source) from error


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
