"""Suites with the tiny recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def suite(tmp_path: Path, tiny_values: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """Writes the tiny recipe with changes, and a suite with the given keys.

    The suite's folder is `bench` next to it; `baselines=None` switches the baselines off.
    """

    def write(changes: dict[str, Any] | None = None, **keys: Any) -> Path:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(tiny_values(changes)), encoding="utf-8")
        if keys.get("baselines", {}) is None:
            keys["baselines"] = {"unet_from_scratch": False, "frozen": False}
        values = {"recipes": {"tiny": str(recipe)}, "folder": str(tmp_path / "bench"), **keys}
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return path

    return write
