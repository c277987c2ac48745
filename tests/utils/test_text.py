"""Shared phrases."""

from __future__ import annotations

from geotune.utils.text import join_some, pluralize


def test_pluralize() -> None:
    assert pluralize(1, "scene") == "1 scene"
    assert pluralize(0, "scene") == "0 scenes" and pluralize(12_000, "scene") == "12,000 scenes"


def test_join_some_omits_names_beyond_the_limit() -> None:
    assert join_some(["a", "b"], 2) == "a, b"
    assert join_some(["a", "b", "c", "d"], 2) == "a, b and 2 more"
