"""Scenes whose names come from a table, and so may be anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geotune.mapping.map_scenes import map_scenes
from geotune.utils.text import word
from helpers.errors import raises

pytestmark = pytest.mark.usefixtures("workers_here")


@pytest.fixture(scope="module")
def run(untrained: Callable[..., Path]) -> Path:
    return untrained()


def table(folder: Path, scene: Path, name: str) -> Path:
    path = folder / "scenes.csv"
    path.write_text(f'image,name\n{scene},"{name}"\n', encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["..", ".", "../other", "a/b", "two\nlines", "a\tb", "zero\0"])
def test_names_that_are_no_files_are_refused(
    run: Path, scenes: Path, tmp_path: Path, name: str
) -> None:
    listed = table(tmp_path, scenes / "b.tif", name)
    with raises("option-invalid", mentions=["name", repr(name)]):
        map_scenes(run, listed, tmp_path / "map", tile=64, device="cpu")
    assert not (tmp_path / "map").exists()


def test_names_that_vector_files_cannot_have_are_refused_before_the_first_tile(
    run: Path, scenes: Path, tmp_path: Path
) -> None:
    listed = table(tmp_path, scenes / "b.tif", "a!b")
    with raises("file-access", mentions=["a!b", "'!'"]):
        map_scenes(run, listed, tmp_path / "map", tile=64, device="cpu")
    assert not (tmp_path / "map").exists()
    map_scenes(run, listed, tmp_path / "map", tile=64, device="cpu", polygons=False)
    assert (tmp_path / "map" / "scenes" / "a!b_classes.tif").is_file()


@pytest.mark.parametrize("name", [".hidden", "per%20cent: é", "<b>&amp;"])
def test_other_names_are_in_the_map(run: Path, scenes: Path, tmp_path: Path, name: str) -> None:
    listed = table(tmp_path, scenes / "b.tif", name)
    map_scenes(run, listed, tmp_path / "map", tile=64, device="cpu")
    links = json.loads((tmp_path / "map" / "catalog.json").read_text(encoding="utf-8"))["links"]
    assert [link["title"] for link in links if link["rel"] == "item"] == [name]
    files = {path.name for path in (tmp_path / "map" / "scenes").iterdir()}
    assert {f"{name}_classes.tif", f"{name}_polygons.gpkg", f"{name}.qgs"} <= files
    assert f"<strong>{name}" not in (tmp_path / "map" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("quantity", ["../../height", "tree height / m", ".."])
def test_a_quantity_of_any_name_has_an_array_in_zarr(
    untrained: Callable[..., Path], scenes: Path, tmp_path: Path, quantity: str
) -> None:
    zarr = pytest.importorskip("zarr")
    run = untrained({"task": {"kind": "regress", "quantity": quantity, "mean": 5, "std": 2}})
    map_scenes(run, scenes / "b.tif", tmp_path, tile=64, device="cpu", zarr=True)
    [(name, array)] = zarr.open_group(tmp_path / "maps.zarr" / "b", mode="r").arrays()
    assert name == word(quantity)
    with rasterio.open(tmp_path / "scenes" / f"b_{name}.tif") as file:
        np.testing.assert_array_equal(array[:], file.read(1))
