"""Descriptions of named data sets agree with themselves."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from geotune.data.published.published_split import Place, division, packaged
from geotune.data.scenes.patterns import parse_fields
from geotune.datasets.base import PARTS, DatasetInfo, FolderSplit, NamedSplit, PackagedSplit
from geotune.datasets.registry import DATASETS, named_dataset
from geotune.registry import ANNOTATION_FORMATS

EVERY = [pytest.param(named_dataset(name), id=name) for name in DATASETS]


def names_in(pattern: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", pattern))


@pytest.mark.parametrize("about", EVERY)
def test_patterns_name_the_same_fields(about: DatasetInfo) -> None:
    assert about.name in DATASETS and about.images and about.source.startswith("http")
    for pattern in about.images:
        assert names_in(about.image_name) | names_in(about.region) <= names_in(pattern)
    own = [names_in(pattern) for pattern in about.images]
    for pattern in [*about.labels, *about.oriented_labels]:
        assert any(names_in(pattern) <= fields for fields in own)
    if about.task == "classify":
        assert not about.labels and all("label" in fields for fields in own)
    else:
        assert about.labels


@pytest.mark.parametrize("about", EVERY)
def test_values_and_parts_are_whole(about: DatasetInfo) -> None:
    assert len(set(about.classes)) == len(about.classes) > 1
    assert len(set(about.bands)) == len(about.bands)
    if about.values:
        assert list(about.values) == list(about.classes)
        every = [value for values in about.values.values() for value in values]
        assert len(set(every)) == len(every) and not set(every) & set(about.ignored)
    assert (about.format in ANNOTATION_FORMATS) == (about.task == "detect")
    assert not about.layers or set(about.layers) == set(about.bands)
    for said in about.divisions.values():
        if isinstance(said, NamedSplit):
            every_name = [name for names in said.parts.values() for name in names]
            assert len(set(every_name)) == len(every_name)
        if isinstance(said, FolderSplit):
            assert all(said.field in names_in(pattern) for pattern in about.images)


def test_the_lists_of_the_paper_are_whole() -> None:
    """Counts of arXiv 2504.17397's lists: train, val, test, and the regions held out."""
    floods = packaged(PackagedSplit("sen1floods11.txt"))
    assert [sum(p.part == part for p in floods.values()) for part in PARTS] == [252, 89, 105]
    bolivia = {name: place for name, place in floods.items() if name.startswith("Bolivia_")}
    assert len(bolivia) == 15 and {place.part for place in bolivia.values()} == {"test"}
    scars = packaged(PackagedSplit("burn_scars.txt"))
    assert [sum(p.part == part for p in scars.values()) for part in PARTS] == [524, 160, 120]
    reben = list(packaged(PackagedSplit("reben_7k.txt")).values())
    assert [reben.count(Place(part, "elsewhere")) for part in PARTS] == [4690, 946, 945]
    assert reben.count(Place("test", "Austria")) == 417
    assert reben.count(Place("test", "Ireland")) == 390
    assert len(reben) == 4690 + 946 + 945 + 807


def test_names_in_packaged_lists_are_those_of_the_patterns() -> None:

    for name in DATASETS:
        about = named_dataset(name)
        if not any(isinstance(said, PackagedSplit) for said in about.divisions.values()):
            continue
        places = division(about, Path("nowhere"), None)
        assert isinstance(places, dict)
        fields = sorted(names_in(about.image_name))
        for image in places:
            found = parse_fields(about.image_name, image, fields)
            assert found is not None and about.image_name.format(**found) == image


def test_lists_come_with_their_licence() -> None:
    folder = files("geotune.datasets").joinpath("splits")
    assert "Apache License" in folder.joinpath("LICENSE").read_text(encoding="utf-8")
    assert "2504.17397" in folder.joinpath("NOTICE.md").read_text(encoding="utf-8")
