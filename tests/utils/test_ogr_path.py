"""Files of shapes at paths with characters that mean something in addresses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import shapely

from geotune.data.labels.vector_io import read_features
from geotune.inference.geopackage import write_features
from helpers.errors import raises


def write(path: Path, name: str) -> None:
    square = np.array([shapely.box(0, 0, 1, 1)], dtype=object)
    fields = {"class": np.array([name], dtype=object)}
    write_features(path, "l", square, fields, geometry_type="Polygon", crs=None, append=False)


@pytest.mark.parametrize("name", ["a;b", "a?b", "a#b", "a%20b", "s3:a", "a b&c"])
def test_they_are_written_where_they_are_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path(), tmp_path / name):
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.gpkg"
        write(path, "water")
        assert f"{name}.gpkg" in os.listdir(folder)
        assert list(read_features(path)["class"]) == ["water"]


def test_others_are_refused_and_no_other_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "b.gpkg", "water")
    with raises("file-access", file=tmp_path / "a!b.gpkg"):
        write(tmp_path / "a!b.gpkg", "land")
    (tmp_path / "a!b.gpkg").touch()
    with raises("file-access", file=tmp_path / "a!b.gpkg"):
        read_features(tmp_path / "a!b.gpkg")
    assert list(read_features(tmp_path / "b.gpkg")["class"]) == ["water"]
