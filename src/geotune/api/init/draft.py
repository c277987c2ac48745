"""A recipe in the making: values and comments by key, and the file that shows both."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from geotune.config import Recipe, parse_recipe
from geotune.data.labels.raster_labels import hex_color

SECTIONS = ("backbone", "method", "decoder", "task", "data", "train")
WIDTH = 96
HINT = (
    "Paths are relative to the folder that geotune is run in. All keys of a section, such as data: "
    "geotune list data."
)
"""The last line of a recipe's header."""
"""Characters in a line of the file."""


class ColorValue(int):
    """A colour, written as 0xRRGGBB."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    ColorValue,
    lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:int", hex_color(value)),
)


@dataclass
class Draft:
    """Sections of a recipe, and comments by dotted key such as `data.window`."""

    values: dict[str, dict[str, Any]] = field(default_factory=lambda: {s: {} for s in SECTIONS})
    comments: dict[str, str] = field(default_factory=dict)

    def set(self, key: str, value: Any, comment: str = "") -> None:
        """Set `section.key`; a value of None removes it."""
        section, _, name = key.partition(".")
        if value is None:
            self.values[section].pop(name, None)
        else:
            self.values[section][name] = value
        self.comments.pop(key, None)
        if comment:
            self.comments[key] = comment

    def recipe(self) -> Recipe:
        """The parsed recipe. Raises `RecipeError` for an invalid one."""
        return parse_recipe(self.values, "the recipe of geotune init")

    def to_yaml(self, header: Sequence[str]) -> str:
        """The file: `header` as comments, then each key below its comment."""
        lines = [line for text in header for line in _comment(text, "")]
        for section in SECTIONS:
            lines += ["", f"{section}:"]
            for name, value in sorted(
                self.values[section].items(), key=lambda item: item[0] == "split"
            ):
                lines += _comment(self.comments.get(f"{section}.{name}", ""), "  ")
                lines += _entry(name, value)
        return "\n".join(lines) + "\n"


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _entry(name: str, value: Any) -> list[str]:
    """A key on one line, or on several if it is too long."""
    options: dict[str, Any] = {
        "Dumper": _Dumper,
        "allow_unicode": True,
        "sort_keys": False,
        "width": math.inf,
    }
    flow = yaml.dump([value], default_flow_style=True, **options).strip()[1:-1]
    text = f"{name}: {flow}"
    if len(text) + 2 > WIDTH and isinstance(value, dict | list):
        text = yaml.dump({name: value}, default_flow_style=False, **options).strip()
    return textwrap.indent(text, "  ").splitlines()
