"""Whatever happens to a file, `check` and `fit` name it: no traceback, no silent pass."""

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

from geotune.api import checking as job
from geotune.config import parse_recipe
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data
from helpers.corrupt_files import DATA, Damage, Values, damages

ALL = list(damages())
TELLING = ("is labelled in", "skipped")
"""Words of the notes that tell of a damage."""
MOST_BYTES = 300 * 2**20
"""By which no damaged file may make the process grow."""


def test_there_are_enough() -> None:
    assert len(ALL) >= 200
    assert len({str(one) for one in ALL}) == len(ALL)


def _case(one: Damage, every: int = 4) -> Any:
    """Every fourth is run by default, as are all that are cheap to get wrong."""
    first = ALL.index(one) % every == 0 or "claims" in one.what
    return pytest.param(one, id=str(one), marks=() if first else pytest.mark.slow)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Values]]:
    """The whole data sets, each made once."""

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


def _check(values: Values, page: Path, monkeypatch: pytest.MonkeyPatch) -> list[job.Issue]:
    # neither depends on the files that are damaged
    monkeypatch.setattr(job, "_write_page", lambda *_: None)
    monkeypatch.setattr(job, "_against_pretraining", lambda *_: (None, []))
    return job.check(parse_recipe(values), page=page).issues


def _same(one: Path, other: Path) -> bool:
    """Whether a raster still says all that it said, so that nothing is lost."""
    try:
        with rasterio.open(one) as a, rasterio.open(other) as b:
            facts = [(f.crs, f.transform, f.descriptions, f.nodata, f.dtypes) for f in (a, b)]
            # a label that lies nowhere is taken pixel by pixel
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, values = originals(one.data)
    folder = tmp_path / "data"
    shutil.copytree(original, folder)
    one.spoil(folder / one.file)
    values = _moved(values, str(original), str(folder))
    named = str(folder / one.names) if one.names else str((folder / one.file).with_suffix(""))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    findings = _check(values, tmp_path / "page.html", monkeypatch)
    telling = [
        found.text
        for found in findings
        if found.severity != "note" or any(words in found.text for words in TELLING)
    ]
    try:
        said = build_data(parse_recipe(values)).notes
    except GeotuneError as error:
        said = [str(error)]

    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MOST_BYTES, f"{grown / 2**20:.0f} MiB"
    spoilt = folder / one.file
    if spoilt.suffix == ".tif" and spoilt.is_file() and _same(spoilt, original / one.file):
        return  # the bytes meant nothing
    assert any(named in text for text in telling), findings
    assert any(named in text for text in said), said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", DATA)
def test_whole_data_is_let_pass(
    data: str,
    tmp_path: Path,
    originals: Callable[[str], tuple[Path, Values]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, values = originals(data)
    findings = _check(values, tmp_path / "page.html", monkeypatch)
    assert not [found for found in findings if found.severity == "error"]
    build_data(parse_recipe(values))
