"""Shared phrases."""

from __future__ import annotations

from geotune.utils.text import did_you_mean, join_some, pluralize, similar_names, suggest


def test_pluralize() -> None:
    assert pluralize(1, "scene") == "1 scene"
    assert pluralize(0, "scene") == "0 scenes" and pluralize(12_000, "scene") == "12,000 scenes"


def test_join_some_omits_names_beyond_the_limit() -> None:
    assert join_some(["a", "b"], 2) == "a, b"
    assert join_some(["a", "b", "c", "d"], 2) == "a, b and 2 more"


def test_similar_names_ignore_case_and_keep_that_of_the_known_name() -> None:
    assert similar_names("b8a", ["B04", "B8A", "B11"]) == ["B8A"]
    assert similar_names("WATTER", ["land", "Water"]) == ["Water"]
    assert similar_names("algier", ["algiers", "algeria", "busan"], count=2) == [
        "algiers",
        "algeria",
    ]


def test_did_you_mean_is_empty_without_a_similar_name() -> None:
    assert did_you_mean("shps", ["ships", "trees"]) == "; did you mean ships?"
    assert did_you_mean("zebra", ["ships", "trees"]) == ""


def test_suggest_lists_the_known_names_if_none_is_similar() -> None:
    assert suggest("shps", ["ships", "trees"]) == "did you mean ships?"
    assert suggest("zebra", ["ships", "trees"]) == "expected one of ships, trees"
    assert suggest("zebra", []) == "there are none"
