"""Descriptions of published data sets are consistent."""

from __future__ import annotations

import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from geotune.data.published.published_split import (
    ImageSplit,
    read_packaged_list,
    read_published_split,
)
from geotune.data.scenes.patterns import parse_fields
from geotune.datasets.base import SPLIT_NAMES, DatasetInfo, FolderSplit, NamedSplit, PackagedSplit
from geotune.datasets.registry import DATASETS, get_dataset_info
from geotune.registry import ANNOTATION_FORMATS

INFOS = [pytest.param(get_dataset_info(name), id=name) for name in DATASETS]


def names_in(pattern: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", pattern))


@pytest.mark.parametrize("info", INFOS)
def test_path_patterns_use_consistent_fields(info: DatasetInfo) -> None:
    assert info.name in DATASETS and info.images and info.source.startswith("http")
    for pattern in info.images:
        assert names_in(info.image_name) | names_in(info.region) <= names_in(pattern)
    own = [names_in(pattern) for pattern in info.images]
    for pattern in [*info.labels, *info.oriented_labels]:
        assert any(names_in(pattern) <= fields for fields in own)
    if info.task == "classify":
        assert not info.labels and all("label" in fields for fields in own)
    else:
        assert info.labels


@pytest.mark.parametrize("info", INFOS)
def test_class_values_and_splits_are_complete(info: DatasetInfo) -> None:
    assert len(set(info.classes)) == len(info.classes) > 1
    assert len(set(info.bands)) == len(info.bands)
    if info.class_values:
        assert list(info.class_values) == list(info.classes)
        values = [value for listed in info.class_values.values() for value in listed]
        assert len(set(values)) == len(values) and not set(values) & set(info.ignore_values)
    assert (info.format in ANNOTATION_FORMATS) == (info.task == "detect")
    assert not info.layers or set(info.layers) == set(info.bands)
    for split in info.splits.values():
        if isinstance(split, NamedSplit):
            names = [name for names in split.names.values() for name in names]
            assert len(set(names)) == len(names)
        if isinstance(split, FolderSplit):
            assert all(split.field in names_in(pattern) for pattern in info.images)


def test_packaged_lists_match_the_paper() -> None:
    """Numbers of images in the lists of arXiv 2504.17397, by split and held-out region."""
    floods = read_packaged_list(PackagedSplit("sen1floods11.txt"))
    counts = Counter(image.split for image in floods.values())
    assert counts == {"train": 252, "val": 89, "test": 105}
    bolivia = [image.split for name, image in floods.items() if name.startswith("Bolivia_")]
    assert bolivia == ["test"] * 15
    scars = read_packaged_list(PackagedSplit("burn_scars.txt"))
    counts = Counter(image.split for image in scars.values())
    assert counts == {"train": 524, "val": 160, "test": 120}
    reben = list(read_packaged_list(PackagedSplit("reben_7k.txt")).values())
    elsewhere = [reben.count(ImageSplit(split, "elsewhere")) for split in SPLIT_NAMES]
    assert elsewhere == [4690, 946, 945]
    assert reben.count(ImageSplit("test", "Austria")) == 417
    assert reben.count(ImageSplit("test", "Ireland")) == 390
    assert len(reben) == 4690 + 946 + 945 + 807


def test_packaged_lists_use_the_names_of_the_path_patterns() -> None:
    for name in DATASETS:
        info = get_dataset_info(name)
        if not any(isinstance(split, PackagedSplit) for split in info.splits.values()):
            continue
        splits = read_published_split(info, Path("nowhere"), None)
        assert isinstance(splits, dict)
        fields = sorted(names_in(info.image_name))
        for image in splits:
            values = parse_fields(info.image_name, image, fields)
            assert values is not None and info.image_name.format(**values) == image


def test_packaged_lists_include_their_licence() -> None:
    folder = files("geotune.datasets").joinpath("splits")
    assert "Apache License" in folder.joinpath("LICENSE").read_text(encoding="utf-8")
    assert "2504.17397" in folder.joinpath("NOTICE.md").read_text(encoding="utf-8")
