"""Tiny copies of published data sets, and recipes that use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geotune.config import Recipe, parse_recipe
from geotune.data.published import published_split
from geotune.data.published.published_split import ImageSplit, read_published_split
from geotune.datasets.base import ListFileSplit, PackagedSplit
from geotune.datasets.registry import get_dataset_info
from helpers.published_datasets import WRITERS

DECODERS = {
    "segment": {"kind": "linear"},
    "classify": {"kind": "global_pool"},
    "detect": {"kind": "fcos", "channels": 16, "depth": 1, "num_levels": 3},
}


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the packaged lists to two images of each split and held-out region."""
    read_full_list = published_split.read_packaged_list

    def read_short_list(split: PackagedSplit) -> dict[str, ImageSplit]:
        short: dict[str, ImageSplit] = {}
        count: Counter[object] = Counter()
        for name, image_split in read_full_list(split).items():
            kind = image_split, name.startswith("Bolivia")
            count[kind] += 1
            if count[kind] <= 2:
                short[name] = image_split
        return short

    monkeypatch.setattr(published_split, "read_packaged_list", read_short_list)


@pytest.fixture
def copy_of(tmp_path: Path, short_lists: None) -> Callable[[str], Path]:
    """Writes a tiny copy of the data set with this name and returns its root."""

    def write(name: str) -> Path:
        if name.startswith("m_"):
            pytest.importorskip("h5py", reason="writes HDF5")
        if name.startswith("geobench2_"):
            pytest.importorskip("pyarrow", reason="writes tortillas")
        info, root = get_dataset_info(name), tmp_path / name
        has_names = any(not isinstance(split, ListFileSplit) for split in info.splits.values())
        splits = read_published_split(info, root, None) if has_names else {}
        WRITERS[name](root, list(splits) if isinstance(splits, dict) else [])
        return root

    return write


@pytest.fixture
def recipe_on() -> Callable[..., Recipe]:
    """Makes a small recipe on the copy of a data set at `root`."""

    def make(name: str, root: Path, task: dict[str, Any] | None = None, **data: Any) -> Recipe:
        info = get_dataset_info(name)
        section: dict[str, Any] = {"kind": "named", "name": name, "root": str(root), "samples": 2}
        if not info.splits:
            section["split"] = {"kind": "random", "val": 0.2, "test": 0.2}
        size = 32 if info.task == "segment" else 64
        size = 120 if name == "reben_7k" else size
        return parse_recipe(
            {
                "backbone": {
                    "name": "timm/test_vit",
                    "pretrained": False,
                    "bands": list(info.bands[-3:]),
                },
                "method": {"kind": "frozen", "stem_width": 0},
                "decoder": DECODERS[info.task],
                "task": {"kind": info.task, **(task or {})},
                "data": {**section, "window": size, **data},
                "train": {"epochs": 1, "batch_size": 2, "accelerator": "cpu"},
            }
        )

    return make
