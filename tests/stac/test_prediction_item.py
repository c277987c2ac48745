"""STAC items of predictions: valid, with links to the scene and to the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rasterio

from geotune.adapter_config import ADAPTER_CONFIG, TENSORS
from geotune.api.prediction import predict
from geotune.config import parse_recipe
from geotune.data.raster.open_raster import open_raster
from geotune.stac.prediction_item import prediction_item
from helpers.adapters import save_pushed
from helpers.errors import raises
from helpers.hub_server import Hub
from helpers.stac import check_item

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def adapter(
    tiny_values: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An adapter of an untrained model of land and water, for tests that only read it."""
    folder = tmp_path_factory.mktemp("model")
    return save_pushed(folder, parse_recipe(tiny_values()))


@pytest.fixture
def scene(tiny_scenes: Path, tmp_path: Path) -> Path:
    """A scene of 64 x 64 pixels with a date."""
    path = tmp_path / "scenes" / "a.tif"
    path.parent.mkdir()
    shutil.copy(tiny_scenes / "scenes" / "a.tif", path)
    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2020:05:01 10:00:00")
    return path


def linked(item: dict[str, Any], folder: Path) -> list[Path]:
    """The files that an item was derived from."""
    return [
        (folder / link["href"]).resolve() for link in item["links"] if link["rel"] == "derived_from"
    ]


def test_a_map_has_an_item_with_links_to_its_scene_and_model(
    adapter: Path, scene: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    (result,) = predict(
        adapter, scene, out, stac=True, probabilities=True, device="cpu", polygons=False
    )
    assert result.files[-1] == out / "a_item.json"
    item = check_item(out / "a_item.json")
    assert linked(item, out) == [out / "card.json", scene]
    assert item["properties"]["datetime"] == "2020-05-01T00:00:00Z"
    assert item["properties"]["proj:code"] == "EPSG:32633"
    assert item["properties"]["proj:shape"] == [64, 64]
    assert item["properties"]["proj:bbox"] == [500_000, 4_999_360, 500_640, 5_000_000]
    assert item["bbox"] == pytest.approx([15.0, 45.1477, 15.0081, 45.1535], abs=1e-4)
    assets = item["assets"]
    assert set(assets) == {"classes", "probabilities", "project"}
    assert all((out / asset["href"]).is_file() for asset in assets.values())
    assert assets["classes"]["nodata"] == 255 and assets["classes"]["data_type"] == "uint8"
    with rasterio.open(result.files[0]) as file:
        colors = file.colormap(1)
    for each in assets["classes"]["classification:classes"]:
        assert each["color_hint"] == "{:02x}{:02x}{:02x}".format(*colors[each["value"]][:3])
    assert [band["name"] for band in assets["probabilities"]["bands"]] == ["land", "water"]
    assert assets["probabilities"]["raster:scale"] == pytest.approx(1 / 254)
    card = check_item(out / "card.json")
    assert (out / card["assets"]["model"]["href"]).resolve() == adapter / TENSORS


def test_only_on_request(adapter: Path, scene: Path, tmp_path: Path) -> None:
    predict(adapter, scene, tmp_path / "maps", device="cpu", qgis=False, polygons=False)
    assert not list((tmp_path / "maps").glob("*.json"))


def test_models_of_the_hub_and_of_an_ensemble_have_their_cards(
    adapter: Path, scene: Path, hub: Hub, tmp_path: Path
) -> None:
    commit = hub.add("org/ships", adapter)
    out = tmp_path / "maps"
    options: dict[str, Any] = {"device": "cpu", "qgis": False, "polygons": False}
    predict("hub:org/ships", scene, out, stac=True, ensemble=[adapter], **options)
    item = check_item(out / "a_item.json")
    assert [link["title"] for link in item["links"][:2]] == [
        f"hub:org/ships@{commit}",
        adapter.name,
    ]
    assert linked(item, out)[:2] == [out / "card_1.json", out / "card_2.json"]
    card = check_item(out / "card_1.json")
    page = "https://huggingface.co/org/ships/resolve"
    assert card["assets"]["model"]["href"] == f"{page}/{commit}/{TENSORS}"


def test_objects_and_tables_have_no_grid(scene: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a_objects.gpkg", tmp_path / "a_objects.geojson", tmp_path / "a.qgs"]
    item = prediction_item(
        "a",
        files,
        {"a": open_raster(scene)},
        tmp_path,
        classes=["ship"],
        models={"./card.json": "run"},
        created="2026-01-02T03:04:05+00:00",
        version="1",
    )
    (tmp_path / "item.json").write_text(json.dumps(item))
    check_item(tmp_path / "item.json")
    assert set(item["assets"]) == {"objects.gpkg", "objects.geojson", "project"}
    assert "proj:code" not in item["properties"] and item["stac_extensions"] == []


def test_a_map_without_georeference_has_a_null_geometry(
    adapter: Path, scene: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.tif"
    with rasterio.open(scene) as file:
        profile = {**file.profile, "crs": None, "transform": rasterio.Affine.identity()}
        with rasterio.open(bare, "w", **profile) as copy:
            copy.write(file.read())
            copy.descriptions = file.descriptions
    predict(adapter, bare, tmp_path, stac=True, device="cpu", qgis=False, polygons=False)
    item = check_item(tmp_path / "bare_item.json")
    assert item["geometry"] is None and "proj:code" not in item["properties"]
    assert item["properties"]["datetime"] == item["properties"]["created"]


# ---------------------------------------------------------------- geotune card
def test_a_card_is_written_beside_the_adapter(
    geotune: Command, adapter: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(adapter, run)
    code, out, _ = geotune("card", run, "--json")
    assert code == 0 and json.loads(out) == {"card": str(run / "card.json")}
    item = check_item(run / "card.json")
    assert item["assets"]["model"]["href"] == "./adapter.safetensors" and item["id"] == "run"

    code, out, _ = geotune("card", run, "--out", tmp_path / "cards" / "run.json")
    assert code == 0 and str(tmp_path / "cards" / "run.json") in out
    item = check_item(tmp_path / "cards" / "run.json")
    assert item["assets"]["model"]["href"] == "../run/adapter.safetensors"


def test_a_card_of_the_hub_needs_a_file(
    geotune: Command, adapter: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.add("org/ships", adapter)
    code, _, err = geotune("card", "hub:org/ships")
    assert code == 1 and "--out" in err and "(option-invalid)" in err
    assert geotune("card", "hub:org/ships", "--out", tmp_path / "ships.json")[0] == 0
    assert check_item(tmp_path / "ships.json")["properties"]["title"] == "org/ships"


def test_a_folder_without_an_adapter_and_a_pretraining_have_no_card(
    adapter: Path, tmp_path: Path
) -> None:
    from geotune.api.stac_card import card

    with raises("adapter-missing", file=tmp_path / ADAPTER_CONFIG):
        card(tmp_path)
    values = json.loads((adapter / ADAPTER_CONFIG).read_text())
    values["task"]["kind"] = "reconstruct"
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps(values))
    with raises("option-not-applicable", key="task.kind"):
        card(tmp_path)


def test_a_card_that_cannot_be_written(adapter: Path, tmp_path: Path) -> None:
    from geotune.api.stac_card import card

    (tmp_path / "file").touch()
    with raises("output-not-writable", file=tmp_path / "file" / "card.json"):
        card(adapter, tmp_path / "file" / "card.json")


def test_a_card_of_another_name_is_replaced_on_request(adapter: Path, tmp_path: Path) -> None:
    from geotune.api.stac_card import card

    path = tmp_path / "mine.json"
    path.write_text("mine")
    with raises("output-exists", file=path, mentions=["--overwrite"]):
        card(adapter, path)
    assert path.read_text() == "mine"
    assert card(adapter, path, overwrite=True) == path and check_item(path)
    assert card(adapter) == card(adapter) == adapter / "card.json"  # its own place
