"""Colours of classes, by known meanings of their names, else from a colour-blind safe cycle.

Meanings and cycle use the colours of Okabe and Ito (https://jfly.uni-koeln.de/color/) and tints of
them, which are distinguishable with all common kinds of colour blindness.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator, Sequence

Color = tuple[int, int, int]
"""Red, green and blue, each 0 to 255."""

_BLUE = (0, 114, 178)
_SKY = (86, 180, 233)
_GREEN = (0, 158, 115)
_YELLOW = (240, 228, 66)
_ORANGE = (230, 159, 0)
_VERMILION = (213, 94, 0)
_PURPLE = (204, 121, 167)
_CYCLE = (_VERMILION, _SKY, _GREEN, _YELLOW, _PURPLE, _BLUE, _ORANGE)

_MEANINGS = (
    (("background", "other", "unknown", "none", "rest"), (204, 204, 204)),
    (("shadow", "shade"), (64, 64, 72)),
    (("cloud", "clouds", "cirrus"), (240, 240, 245)),
    (("snow", "ice", "glacier"), (200, 236, 250)),
    (("ship", "ships", "vessel", "boat"), _VERMILION),
    (("water", "sea", "ocean", "lake", "river", "flood", "pond"), _BLUE),
    (("forest", "tree", "trees", "wood", "woodland"), (0, 104, 72)),
    (("vegetation", "plant", "plants", "shrub", "mangrove"), _GREEN),
    (("field", "fields", "crop", "crops", "cropland", "farmland", "agriculture"), _YELLOW),
    (("grass", "grassland", "meadow", "pasture"), (150, 200, 90)),
    (("built", "builtup", "building", "buildings", "urban", "city", "house"), _PURPLE),
    (("road", "roads", "street", "impervious", "paved"), (110, 110, 110)),
    (("fire", "burn", "burnt", "burned"), (150, 40, 27)),
    (("wetland", "marsh", "swamp", "bog"), (86, 160, 190)),
    (("land", "soil", "bare", "sand", "rock", "barren", "desert"), (196, 164, 112)),
)


def palette(classes: Sequence[str]) -> tuple[Color, ...]:
    """Distinct colours for up to 255 classes.

    Words with a known meaning decide: water is blue, background grey.
    """
    assigned: dict[int, Color] = {}
    for index, name in enumerate(classes):
        color = _color_of_name(name)
        if color is not None and color not in assigned.values():
            assigned[index] = color
    taken = set(assigned.values())
    spare = (color for color in _distinct_colors() if color not in taken)
    return tuple(
        assigned[index] if index in assigned else next(spare) for index in range(len(classes))
    )


def css(color: Color) -> str:
    """The colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def is_background(name: str) -> bool:
    """Whether a class is the background class."""
    return name.strip().lower() == "background"


def _color_of_name(name: str) -> Color | None:
    words = set(re.split(r"[^a-z]+", name.lower()))
    for keys, color in _MEANINGS:
        if words & set(keys):
            return color
    return None


def _distinct_colors() -> Iterator[Color]:
    """The cycle, then hues spaced by the golden angle with alternating lightness."""
    yield from _CYCLE
    seen = set(_CYCLE)
    number = 0
    while True:
        hue, lightness = (number * 0.618034) % 1, (0.45, 0.7, 0.3)[number % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.65)
        color = (round(red * 255), round(green * 255), round(blue * 255))
        number += 1
        if color not in seen:
            seen.add(color)
            yield color
