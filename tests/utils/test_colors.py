"""Colours of classes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotune.utils.colors import css, is_background, palette

_words = st.sampled_from(["water", "tree", "field", "cloud", "x"])


@settings(deadline=None)
@given(st.lists(st.lists(_words, max_size=3).map(" ".join), max_size=60))
def test_colours_are_distinct(classes: list[str]) -> None:
    colors = palette(classes)
    assert len(set(colors)) == len(colors) == len(classes)


def test_255_classes_of_one_meaning_have_distinct_colours() -> None:
    assert len(set(palette([f"water {i}" for i in range(255)]))) == 255


@pytest.mark.parametrize(("name", "channel"), [("open water", 2), ("vegetation", 1), ("Trees", 1)])
def test_known_names_have_their_colour(name: str, channel: int) -> None:
    color = palette(["something", name])[1]
    assert max(range(3), key=lambda i: color[i]) == channel


def test_only_whole_words_count() -> None:
    assert palette(["iceland"]) == palette(["x"])


def test_background_is_recognised_by_name() -> None:
    assert is_background(" Background") and not is_background("backgrounds")


def test_css_color() -> None:
    assert css((0, 114, 178)) == "#0072b2"
