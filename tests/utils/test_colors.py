"""Colours of classes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotune.utils.colors import css, is_background, palette

_words = st.sampled_from(["water", "tree", "field", "cloud", "x"])


@settings(deadline=None)
@given(st.lists(st.lists(_words, max_size=3).map(" ".join), max_size=60))
def test_no_two_classes_share_a_colour(classes: list[str]) -> None:
    colors = palette(classes)
    assert len(set(colors)) == len(colors) == len(classes)


def test_255_classes_have_colours_even_where_they_mean_the_same() -> None:
    assert len(set(palette([f"water {i}" for i in range(255)]))) == 255


@pytest.mark.parametrize(("name", "channel"), [("open water", 2), ("vegetation", 1), ("Trees", 1)])
def test_names_mean_their_colour(name: str, channel: int) -> None:
    color = palette(["something", name])[1]
    assert max(range(3), key=lambda i: color[i]) == channel


def test_a_word_within_another_does_not_count() -> None:
    assert palette(["iceland"]) == palette(["x"])


def test_background_is_what_is_called_so() -> None:
    assert is_background(" Background") and not is_background("backgrounds")


def test_css() -> None:
    assert css((0, 114, 178)) == "#0072b2"
