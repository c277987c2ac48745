"""`check` and `fit` name every damaged file, without a traceback."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geotune.api.checking import find_data_issues
from geotune.config import parse_recipe
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data
from helpers.corrupt_files import DATA, Damage, Values, damages

ALL = list(damages())
MAX_GROWTH = 300 * 2**20
"""Maximum memory in bytes that reading a damaged file may take."""


def test_there_are_many_distinct_kinds_of_damage() -> None:
    assert len(ALL) >= 200
    assert len({str(damage) for damage in ALL}) == len(ALL)


def _as_parameter(damage: Damage) -> Any:
    """Three of four are slow tests, except false headers."""
    fast = ALL.index(damage) % 4 == 0 or "claims" in damage.kind
    return pytest.param(damage, id=str(damage), marks=() if fast else pytest.mark.slow)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Values]]:
    """The undamaged data sets, each written once."""

    @cache
    def make(data: str) -> tuple[Path, Values]:
        folder = tmp_path_factory.mktemp(data) / "data"
        folder.mkdir()
        return folder, DATA[data](folder)

    return make


def _replace_paths(values: Any, old: str, new: str) -> Any:
    if isinstance(values, dict):
        return {key: _replace_paths(value, old, new) for key, value in values.items()}
    return values.replace(old, new) if isinstance(values, str) else values


def _equal_rasters(path: Path, original: Path) -> bool:
    """Whether two rasters have the same pixels and metadata."""
    try:
        with rasterio.open(path) as a, rasterio.open(original) as b:
            metadata = [(f.crs, f.transform, f.descriptions, f.nodata, f.dtypes) for f in (a, b)]
            # a label without georeference is matched pixel by pixel
            by_pixel = path.parent.name == "labels" and (a.crs is None or a.transform.is_identity)
            if a.shape != b.shape:
                return False
            return (metadata[0] == metadata[1] or by_pixel) and np.array_equal(a.read(), b.read())
    except rasterio.errors.RasterioError:
        return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", [_as_parameter(damage) for damage in ALL])
def test_damaged_files_are_named(
    damage: Damage, tmp_path: Path, originals: Callable[[str], tuple[Path, Values]]
) -> None:
    original, values = originals(damage.data)
    folder = tmp_path / "data"
    shutil.copytree(original, folder)
    damaged = folder / damage.file
    damage.corrupt(damaged)
    values = _replace_paths(values, str(original), str(folder))
    named = str(folder / damage.reported_as if damage.reported_as else damaged.with_suffix(""))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    issues, _, _ = find_data_issues(parse_recipe(values))
    reported = [
        issue.text for issue in issues if issue.severity != "note" or issue.check == "labels"
    ]
    try:
        training_notes = build_data(parse_recipe(values)).notes
    except GeotuneError as error:
        training_notes = [str(error)]

    growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert growth < MAX_GROWTH, f"{growth / 2**20:.0f} MiB"
    if (
        damaged.suffix == ".tif"
        and damaged.is_file()
        and _equal_rasters(damaged, original / damage.file)
    ):
        return  # the changed bytes are not used
    assert any(named in text for text in reported), issues
    assert any(named in text for text in training_notes), training_notes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", DATA)
def test_undamaged_data_has_no_errors(
    data: str, originals: Callable[[str], tuple[Path, Values]]
) -> None:
    _, values = originals(data)
    issues, _, _ = find_data_issues(parse_recipe(values))
    assert not [issue for issue in issues if issue.severity == "error"]
    build_data(parse_recipe(values))
