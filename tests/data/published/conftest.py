"""Tiny copies of named data sets, and recipes on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geotune.config import Recipe, parse_recipe
from geotune.data.published import published_split as room
from geotune.data.published.published_split import SplitAssignment, published_assignments
from geotune.datasets.base import PackagedSplit
from geotune.datasets.registry import get_dataset_info
from helpers.published_datasets import WRITERS

DECODERS = {
    "segment": {"kind": "linear"},
    "classify": {"kind": "global_pool"},
    "detect": {"kind": "fcos", "channels": 16, "depth": 1, "num_levels": 3},
}


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the lists that geotune brings along two images of each part and region held out."""
    whole = room.read_packaged_list

    def first(said: PackagedSplit) -> dict[str, SplitAssignment]:
        kept: dict[str, SplitAssignment] = {}
        count: Counter[object] = Counter()
        for name, place in whole(said).items():
            kind = place, name.startswith("Bolivia")
            count[kind] += 1
            if count[kind] <= 2:
                kept[name] = place
        return kept

    monkeypatch.setattr(room, "read_packaged_list", first)


@pytest.fixture
def copy_of(tmp_path: Path, short_lists: None) -> Callable[[str], Path]:
    """Writes a tiny copy of a data set by its name; gives its root."""

    def made(name: str) -> Path:
        if name.startswith("m_"):
            pytest.importorskip("h5py", reason="writes HDF5")
        about, root = get_dataset_info(name), tmp_path / name
        listed = [d for d in about.splits.values() if not hasattr(d, "files")][:1]
        places = published_assignments(about, root, None) if listed else {}
        WRITERS[name](root, list(places) if isinstance(places, dict) else [])
        return root

    return made


@pytest.fixture
def recipe_on() -> Callable[..., Recipe]:
    """A small recipe on a copy."""

    def made(name: str, root: Path, task: dict[str, Any] | None = None, **data: Any) -> Recipe:
        about = get_dataset_info(name)
        own: dict[str, Any] = {"kind": "named", "name": name, "root": str(root), "samples": 2}
        if not about.splits:
            own["split"] = {"kind": "random", "val": 0.2, "test": 0.2}
        size = 32 if about.task == "segment" else 64
        size = 120 if name == "reben_7k" else size
        return parse_recipe(
            {
                "backbone": {
                    "name": "timm/test_vit",
                    "pretrained": False,
                    "bands": list(about.bands[-3:]),
                },
                "method": {"kind": "frozen", "stem_width": 0},
                "decoder": DECODERS[about.task],
                "task": {"kind": about.task, **(task or {})},
                "data": {**own, "window": size, **data},
                "train": {"epochs": 1, "batch_size": 2, "accelerator": "cpu"},
            }
        )

    return made
