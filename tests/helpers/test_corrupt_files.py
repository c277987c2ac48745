"""`check` and `fit` name every damaged file: no traceback, nothing accepted silently."""

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


def test_there_are_enough() -> None:
    assert len(ALL) >= 200
    assert len({str(one) for one in ALL}) == len(ALL)


def _case(one: Damage, every: int = 4) -> Any:
    """One damage; three of four are slow tests, except false claims in headers."""
    first = ALL.index(one) % every == 0 or "claims" in one.what
    return pytest.param(one, id=str(one), marks=() if first else pytest.mark.slow)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Values]]:
    """The undamaged data sets, each written once."""

    @cache
    def make(data: str) -> tuple[Path, Values]:
        folder = tmp_path_factory.mktemp(data) / "data"
        folder.mkdir()
        return folder, DATA[data](folder)

    return make


def _moved(values: Any, old: str, new: str) -> Any:
    if isinstance(values, dict):
        return {key: _moved(value, old, new) for key, value in values.items()}
    return values.replace(old, new) if isinstance(values, str) else values


def _same(one: Path, other: Path) -> bool:
    """Whether two rasters have the same pixels and metadata."""
    try:
        with rasterio.open(one) as a, rasterio.open(other) as b:
            facts = [(f.crs, f.transform, f.descriptions, f.nodata, f.dtypes) for f in (a, b)]
            # a label without georeferencing is matched pixel by pixel
            unplaced = one.parent.name == "labels" and (a.crs is None or a.transform.is_identity)
            if a.shape != b.shape:
                return False
            return (facts[0] == facts[1] or unplaced) and np.array_equal(a.read(), b.read())
    except rasterio.errors.RasterioError:
        return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("one", [_case(one) for one in ALL])
def test_damage_is_named(
    one: Damage,
    tmp_path: Path,
    originals: Callable[[str], tuple[Path, Values]],
) -> None:
    original, values = originals(one.data)
    folder = tmp_path / "data"
    shutil.copytree(original, folder)
    one.spoil(folder / one.file)
    values = _moved(values, str(original), str(folder))
    named = str(folder / one.names) if one.names else str((folder / one.file).with_suffix(""))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    issues, _, _ = find_data_issues(parse_recipe(values))
    reported = [
        issue.text for issue in issues if issue.severity != "note" or issue.check == "labels"
    ]
    try:
        training_notes = build_data(parse_recipe(values)).notes
    except GeotuneError as error:
        training_notes = [str(error)]

    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MAX_GROWTH, f"{grown / 2**20:.0f} MiB"
    damaged = folder / one.file
    if damaged.suffix == ".tif" and damaged.is_file() and _same(damaged, original / one.file):
        return  # the changed bytes have no meaning
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
