"""Maps made of tiles: equal to those of `predict`, whoever computes the tiles and when."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio

from geotune.api.prediction import predict
from geotune.errors import GeotuneError, OutputError
from geotune.mapping.map_scenes import map_scenes
from geotune.mapping.store import LocalStore
from helpers.corrupt_files import break_block
from helpers.errors import raises
from helpers.stac import check_item

pytestmark = pytest.mark.usefixtures("workers_here")


@pytest.fixture(scope="module")
def run(untrained: Callable[..., Path]) -> Path:
    return untrained()


def mapped(run: Path, scenes: Path, out: Path, **options: Any) -> Any:
    return map_scenes(run, str(scenes / "*.tif"), out, tile=64, device="cpu", **options)


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith("_item.json")}


def test_maps_are_those_of_predict(run: Path, scenes: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"probabilities": True, "uncertainty": True, "formats": ["parquet"]}
    result = mapped(run, scenes, tmp_path / "map", workers=2, zarr=False, **options)
    assert result.done == result.tiles == 3 * 3 + 4 and not result.failed
    predict(run, str(scenes / "*.tif"), tmp_path / "map" / "as_predicted", device="cpu", **options)
    expected = content(tmp_path / "map" / "as_predicted")
    found = content(tmp_path / "map" / "scenes")
    assert found.keys() == expected.keys()
    for name in expected:
        if name.endswith((".tif", ".gpkg", ".parquet")):
            assert found[name] == expected[name], name


def test_values_are_those_of_predict(
    untrained: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    run = untrained({"task": {"kind": "regress", "quantity": "height", "mean": 5, "std": 2}})
    mapped(run, scenes, tmp_path / "map")
    predict(run, str(scenes / "*.tif"), tmp_path / "predicted", device="cpu")
    for path in (tmp_path / "predicted").glob("*.tif"):
        with rasterio.open(path) as one, rasterio.open(tmp_path / "map/scenes" / path.name) as two:
            np.testing.assert_allclose(one.read(), two.read(), rtol=1e-5, equal_nan=True)


def test_objects_are_those_of_predict(
    untrained: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    task = {"kind": "detect", "classes": ["ship"], "boxes": "oriented"}
    run = untrained({"task": task, "decoder": {"kind": "rotated_fcos"}})
    options: dict[str, Any] = {"batch_size": 1, "score": 0.0}
    mapped(run, scenes, tmp_path / "map", **options)
    predict(run, str(scenes / "*.tif"), tmp_path / "predicted", device="cpu", **options)
    for name in ("a_objects", "b_objects"):
        one, two = (
            pyogrio.read_dataframe(folder / f"{name}.gpkg")
            for folder in (tmp_path / "map" / "scenes", tmp_path / "predicted")
        )
        assert len(one) > 20 and one.equals(two)


def test_shards_in_any_order_give_the_same_files(run: Path, scenes: Path, tmp_path: Path) -> None:
    mapped(run, scenes, tmp_path / "whole")
    for shard in ("2/3", "0/3"):
        result = mapped(run, scenes, tmp_path / "shards", shard=shard)
    assert 0 < result.done < result.tiles
    with raises("map-incomplete", mentions=[f"{result.tiles - result.done} of {result.tiles}"]):
        mapped(run, scenes, tmp_path / "shards", combine=True)
    mapped(run, scenes, tmp_path / "shards", shard="1/3", workers=2)
    mapped(run, scenes, tmp_path / "shards", combine=True)
    for folder in ("scenes", "tiles/a", "tiles/b"):
        assert content(tmp_path / "shards" / folder) == content(tmp_path / "whole" / folder)


def test_a_finished_map_is_not_computed_again(run: Path, scenes: Path, tmp_path: Path) -> None:
    mapped(run, scenes, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "tiles").rglob("*.*")}
    before |= {p: p.stat().st_mtime_ns for p in (tmp_path / "scenes").rglob("*.*")}
    mapped(run, scenes, tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in before}
    mapped(run, scenes, tmp_path, min_area="12 px")  # other polygons of the same tiles
    changed = {p.name for p, time in before.items() if p.stat().st_mtime_ns != time}
    assert "a_polygons.gpkg" in changed and not any(name.startswith("0_0") for name in changed)


def test_damaged_tiles_are_computed_again(run: Path, scenes: Path, tmp_path: Path) -> None:
    mapped(run, scenes, tmp_path)
    expected = content(tmp_path / "scenes")
    tile = tmp_path / "tiles" / "a" / "64_64.tif"
    whole = tile.read_bytes()
    tile.write_bytes(whole[:-1] + b"?")
    shutil.rmtree(tmp_path / "written")
    mapped(run, scenes, tmp_path)
    assert tile.read_bytes() == whole and content(tmp_path / "scenes") == expected


def test_dead_scenes_are_listed_and_do_not_stop_the_others(
    run: Path, scenes: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(scenes, tmp_path / "scenes"))
    (folder / "c.tif").write_bytes(b"no raster")
    break_block(folder / "b.tif", 2)
    result = mapped(run, folder, tmp_path / "map")
    lost = [each.tile for each in result.failed]
    assert sorted(lost) == ["", "b/128_0", "b/192_0", "b/64_0"]
    assert (tmp_path / "map" / "scenes" / "a_classes.tif").is_file()
    listed = (tmp_path / "map" / "failed.csv").read_text()
    assert "c.tif" in listed and "b/64_0" in listed
    assert "3 of 4 tiles" in " ".join(result.notes)
    with rasterio.open(tmp_path / "map" / "scenes" / "b_classes.tif") as file:
        values = file.read(1)
    assert (values[64:] == 255).all() and (values[40:64] != 255).all()


@pytest.mark.parametrize(
    ("changes", "mention"),
    [
        ({"overlap": 0.25}, "overlap is 0.5, now 0.25"),
        ({"threads": 2}, "threads"),
    ],
)
def test_another_map_in_the_folder_is_refused(
    run: Path, scenes: Path, tmp_path: Path, changes: dict[str, Any], mention: str
) -> None:
    mapped(run, scenes, tmp_path, shard="0/99")
    with raises("map-exists", key="--out", mentions=[mention]):
        mapped(run, scenes, tmp_path, **changes)


def test_other_scenes_runs_and_files_in_the_folder_are_refused(
    run: Path, scenes: Path, tmp_path: Path, untrained: Callable[..., Path]
) -> None:
    mapped(run, scenes, tmp_path / "map", shard="0/99")
    with raises("map-exists", mentions=["b is gone"]):
        map_scenes(run, str(scenes / "a.tif"), tmp_path / "map", tile=64, device="cpu")
    other = untrained({"method": {"kind": "frozen"}})
    with raises("map-exists", mentions=["its run"]):
        mapped(other, scenes, tmp_path / "map")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter.txt").write_text("dear reader")
    with raises("map-exists", mentions=["letter.txt"]):
        mapped(run, scenes, tmp_path / "used")


def test_scenes_with_other_bands_are_refused_before_anything_is_written(
    run: Path, scenes: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(scenes, tmp_path / "scenes"))
    with rasterio.open(folder / "b.tif", "r+") as file:
        file.descriptions = ("red", "green", "swir")
    with raises("band-missing", mentions=["b.tif", "nir"]):
        mapped(run, folder, tmp_path / "map")
    assert not (tmp_path / "map").exists()


@pytest.mark.parametrize("shard", ["8/8", "1", "-1/2", "a/b"])
def test_invalid_shards_are_refused(run: Path, scenes: Path, tmp_path: Path, shard: str) -> None:
    with raises("option-invalid", key="--shard"):
        mapped(run, scenes, tmp_path / "map", shard=shard)


def test_a_ray_address_that_does_not_answer_is_refused(
    run: Path, scenes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    with raises("cluster-unreachable", key="--ray", mentions=["127.0.0.1:1"]):
        mapped(run, scenes, tmp_path, ray="127.0.0.1:1")


def test_a_full_disk_leaves_valid_tiles_and_the_command_resumes(
    run: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = LocalStore.write, []

    def until_full(store: LocalStore, name: str, data: bytes) -> None:
        if name.endswith(".tif") and len(written) == 4:
            raise OutputError(f"{name}: cannot be written (No space left on device)")
        written.append(name) if name.endswith(".tif") else None
        write(store, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "write", until_full)
        with pytest.raises(GeotuneError, match="No space left"):
            mapped(run, scenes, tmp_path / "map")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "map" / "tiles").rglob("*.tif")}
    assert len(times) == 4
    mapped(run, scenes, tmp_path / "map")
    assert times == {p: p.stat().st_mtime_ns for p in times}
    mapped(run, scenes, tmp_path / "whole")
    assert content(tmp_path / "map/scenes") == content(tmp_path / "whole/scenes")


def test_an_object_store_gets_the_same_files(run: Path, scenes: Path, tmp_path: Path) -> None:
    mapped(run, scenes, tmp_path / "local", qgis=False)
    store = f"file://{tmp_path}/store"
    map_scenes(run, str(scenes / "*.tif"), store, tile=64, device="cpu", qgis=False)
    assert content(tmp_path / "local/scenes") == content(tmp_path / "store/scenes")
    assert (tmp_path / "store" / "catalog.json").is_file()


def test_the_catalogue_is_valid_and_its_checksums_hold(
    run: Path, scenes: Path, tmp_path: Path
) -> None:
    import hashlib

    import pystac

    mapped(run, scenes, tmp_path)
    catalog = pystac.Catalog.from_file(tmp_path / "catalog.json")
    items = list(catalog.get_items())
    assert [item.id for item in items] == ["a", "b"]
    for item in items:
        path = Path(item.get_self_href())
        check_item(path)
        for asset in item.assets.values():
            data = Path(asset.get_absolute_href()).read_bytes()
            assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()
            assert asset.extra_fields["file:size"] == len(data)


def test_zarr_has_one_shard_per_tile(run: Path, scenes: Path, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    mapped(run, scenes, tmp_path, zarr=True)
    array = zarr.open_group(tmp_path / "maps.zarr", mode="r")["a/classes"]
    assert array.metadata.zarr_format == 3 and array.shards == (64, 64)
    with rasterio.open(tmp_path / "scenes/a_classes.tif") as file:
        np.testing.assert_array_equal(array[:], file.read(1))
    # a shard that only holds the fill value is not stored
    shards = [p for p in (tmp_path / "maps.zarr/a/classes/c").rglob("*") if p.is_file()]
    assert len(shards) == 9


def test_rows_of_a_table_are_those_of_predict(
    untrained: Callable[..., Path], scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geotune.mapping.plan.IMAGES_PER_TILE", 2)
    changes = {
        "task": {"kind": "classify", "classes": ["x", "y"]},
        "decoder": {"kind": "global_pool"},
        "data": {"kind": "images", "images": "i", "window": 32, "split": {"kind": "random"}},
    }
    run = untrained(changes)
    folder = tmp_path / "scenes"
    folder.mkdir()
    for number in range(5):
        with rasterio.open(scenes / "a.tif") as file:
            part = rasterio.windows.Window(60 + number, 50, 32, 32)
            profile = {**file.profile, "height": 32, "width": 32}
            with rasterio.open(folder / f"i{number}.tif", "w", **profile) as small:
                small.write(file.read(window=part))
                small.descriptions = file.descriptions
    break_block(folder / "i2.tif", 0)
    result = mapped(run, folder, tmp_path / "map")
    assert [each.scene for each in result.failed] == ["i2"]
    (folder / "i2.tif").unlink()
    predict(run, str(folder / "*.tif"), tmp_path / "predicted", device="cpu")
    found, expected = (
        list(csv.reader((tmp_path / folder / "images.csv").read_text().splitlines()))
        for folder in ("map/scenes", "predicted")
    )
    assert found[0] == expected[0] and len(found) == 5
    for row, as_predicted in zip(found[1:], expected[1:], strict=True):
        assert row[:3] == as_predicted[:3]
        np.testing.assert_allclose(
            [*map(float, row[3:])], [*map(float, as_predicted[3:])], atol=2e-6
        )


def test_json_of_the_command(geotune: Any, run: Path, scenes: Path, tmp_path: Path) -> None:
    code, out, _ = geotune(
        "map", run, "--scenes", scenes / "a.tif", scenes / "b.tif", "--out", tmp_path / "map",
        "--tile", 64, "--json",
    )  # fmt: skip
    values = json.loads(out)
    assert code == 0 and values["done"] == values["tiles"] == 13 and values["failed"] == []
    code, _, err = geotune("map", run, run, "--scenes", scenes / "a.tif", "--out", tmp_path / "m")
    assert code == 1 and "both named" in err
