"""Sizes in recipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from geotune.config import parse_recipe, parse_size
from geotune.config.units import Nodata
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


def test_nan_is_a_nodata_value_and_stays_equal() -> None:
    """`geotune check` proposes it for images with NaN pixels."""
    read = TypeAdapter(Nodata)
    value = read.validate_python(yaml.safe_load(".nan"))
    assert np.isnan(value) and read.dump_python(value, mode="json") == "nan"
    again = read.validate_python("nan")
    assert {"nodata": again} == {"nodata": value}, "the same object, so that recipes are equal"
    assert read.validate_python(-9999) == -9999 == read.dump_python(-9999.0, mode="json")
    with pytest.raises(ValidationError, match=r"expected a number or \.nan"):
        read.validate_python(float("inf"))
