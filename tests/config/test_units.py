"""Sizes in recipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from geotune.config import parse_recipe, parse_size
from helpers.errors import raises


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GB", 8 * 10**9),
        ("8 GB", 8 * 10**9),
        ("8GiB", 8 * 2**30),
        ("8000MB", 8 * 10**9),
        ("1.5 tb", 1_500_000_000_000),
        ("512kib", 2**19),
        ("100 B", 100),
        (12345678, 12345678),
        ("12345678", 12345678),
    ],
)
def test_sizes_are_parsed_to_bytes(text: str | int, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "GB", "8 XB", "-8GB", "0", "8,5GB", "nan", "1e9", True, None, 8, "8.5"]
)
def test_invalid_size_is_an_error(tiny_values: Callable[..., dict[str, Any]], text: Any) -> None:
    with pytest.raises(ValueError, match=r"expected .*8GB"):
        parse_size(text)
    if text is not None:
        with raises("recipe-invalid", key="train.cache_limit", mentions=["8GB"]):
            parse_recipe(tiny_values({"train.cache_limit": text}))
