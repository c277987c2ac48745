"""Which bands of an image show its colours."""

from __future__ import annotations

from collections.abc import Sequence

NATURAL = (("b04", "b03", "b02"), ("b4", "b3", "b2"), ("red", "green", "blue"), ("r", "g", "b"))
FALSE = (("b08", "b04", "b03"), ("b8", "b4", "b3"), ("nir", "red", "green"), ("n", "r", "g"))


def shown_bands(bands: Sequence[str]) -> tuple[int, int, int]:
    """Choose the indices of the bands to display as red, green and blue.

    By band name natural colours, else false colours (near infrared, red, green), else the first
    three bands; the first band in grey if there are fewer than three.
    """
    names = [band.lower() for band in bands]
    for red, green, blue in NATURAL + FALSE:
        if red in names and green in names and blue in names:
            return names.index(red), names.index(green), names.index(blue)
    return (0, 1, 2) if len(names) > 2 else (0, 0, 0)
