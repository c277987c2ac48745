"""Scenes and labels on a server: read where it is allowed, refused elsewhere."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from rasterio.transform import from_origin

import geotune
from geotune.data.labels.vector_io import read_features
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.windows import Window
from geotune.data.scenes.find import find_files
from geotune.errors import GeotuneError
from geotune.utils.remote import (
    ENABLED,
    GDAL_OPTIONS,
    OFFLINE_OPTIONS,
    RemotePath,
    gdal_name,
    remote_reading,
    server_variables,
    to_path,
    without_servers,
)
from helpers.errors import raises
from helpers.range_server import FileServer, serving_files


@pytest.fixture
def server(tiny_scenes: Path) -> Iterator[FileServer]:
    """A server of the tiny scenes."""
    with serving_files(tiny_scenes) as state:
        yield state


@pytest.fixture
def run_command(request: pytest.FixtureRequest) -> Callable[..., tuple[int, str, str]]:
    """The fixture `geotune`, which has the name of the package."""
    run: Callable[..., tuple[int, str, str]] = request.getfixturevalue("geotune")
    return run


@pytest.fixture
def allowed() -> Iterator[None]:
    with geotune.remote_reading():
        yield


@pytest.mark.parametrize(
    ("text", "gdal"),
    [
        ("https://host/a/b.tif", "/vsicurl/https://host/a/b.tif"),
        ("http://host:80/a/b.tif", "/vsicurl/http://host:80/a/b.tif"),
        ("s3://bucket/a/b.tif", "/vsis3/bucket/a/b.tif"),
        ("gs://bucket/a/b.tif", "/vsigs/bucket/a/b.tif"),
    ],
)
def test_a_path_keeps_its_address(text: str, gdal: str) -> None:
    path = to_path(text)
    assert isinstance(path, RemotePath)
    again = copy.deepcopy(path)  # as when it is sent to a worker process
    assert type(again) is RemotePath and str(again) == text
    assert (str(path), os.fspath(path), f"{path}") == (text, text, text)
    assert gdal_name(path) == gdal
    assert gdal_name(Path(text)) == gdal  # also of a plain path, which has lost a slash
    assert (path.name, path.stem, path.suffix) == ("b.tif", "b", ".tif")
    assert str(path.with_name("c.tif")) == text.replace("b.tif", "c.tif")
    assert str(path.parent / "c.tif") == text.replace("b.tif", "c.tif")
    assert path.absolute() == path and path == to_path(text) and hash(path) == hash(to_path(text))


def test_local_paths_stay() -> None:
    for text in ("a/b.tif", "/a/b.tif", "data:/x.tif", "C:/a.tif", "https/a.tif"):
        assert type(to_path(text)) is type(Path(text))
        assert gdal_name(Path(text)) == text


def test_nothing_is_asked_of_a_server_unless_it_is_allowed(server: FileServer) -> None:
    for pattern in (f"{server.url}/scenes/a.tif", f"{server.url}/scenes/*.tif"):
        with pytest.raises(GeotuneError, match="add --remote") as error:
            find_files(pattern)
        assert error.value.code == "file-remote"
    with pytest.raises(GeotuneError, match="add --remote"):
        to_path(f"{server.url}/scenes/a.tif").exists()
    assert server.requests == []


def test_a_recipe_alone_reads_nothing_from_a_server(
    server: FileServer, tiny_values: Callable[..., dict[str, Any]]
) -> None:
    for key, value in (
        ("data.scenes", f"{server.url}/scenes/*.tif"),
        ("data.labels", f"{server.url}/labels/{{stem}}.tif"),
    ):
        with pytest.raises(GeotuneError, match="add --remote"):
            geotune.open_scenes(tiny_values({key: value}))
    assert server.requests == []


VRT = """<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Float32" band="1">
<SimpleSource><SourceFilename>/vsicurl/{url}/scenes/a.tif</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand></VRTDataset>"""
WMS = """<GDAL_WMS>
<Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>
<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>64</UpperLeftY><LowerRightX>64</LowerRightX>
<LowerRightY>0</LowerRightY><SizeX>64</SizeX><SizeY>64</SizeY><TileLevel>0</TileLevel></DataWindow>
<BlockSizeX>64</BlockSizeX><BlockSizeY>64</BlockSizeY><BandsCount>1</BandsCount></GDAL_WMS>"""


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.vrt", VRT), ("b.vrt", VRT.replace("a.tif", "a.none")), ("a.xml", WMS)],
)
def test_local_files_that_refer_to_a_server_are_not_followed(
    server: FileServer,
    run_command: Callable[..., tuple[int, str, str]][..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("no_proxy", "NO_PROXY"):  # proxies are not used for these hosts
        monkeypatch.setenv(variable, "127.0.0.1,localhost")
    (tmp_path / name).write_text(text.format(url=server.url))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "backbone": {"name": "timm/test_vit", "pretrained": False, "bands": ["red"]},
                "method": {"kind": "frozen"},
                "decoder": {"kind": "linear"},
                "task": {"kind": "segment", "classes": ["land", "water"]},
                "data": {
                    "kind": "scenes",
                    "scenes": str(tmp_path / name),
                    "bands": ["red"],
                    "labels": str(tmp_path / "labels.tif"),
                    "split": {"kind": "blocks", "side": "16 px", "buffer": "0 px"},
                    "window": 16,
                },
            }
        )
    )
    with rasterio.open(
        tmp_path / "labels.tif", "w", driver="GTiff", height=64, width=64, count=1, dtype="uint8"
    ) as file:
        file.write(np.arange(64 * 64, dtype=np.uint8).reshape(1, 64, 64) % 2)
    code, out, err = run_command("check", recipe)
    assert code != 0 and server.requests == [], out + err
    assert os.environ["no_proxy"] == "127.0.0.1,localhost"
    assert "it names files or services on servers" in out and "add --remote" in out


def test_processes_that_are_started_connect_to_no_server_either(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "a.vrt").write_text(VRT.replace("a.tif", "a.none").format(url=server.url))
    code = "import sys, rasterio; from geotune.utils.remote import stay_without_servers as stay; "
    read = "stay(); print('read', end=' '); rasterio.open(sys.argv[1]).read()"
    started = [sys.executable, "-c", code + read, str(tmp_path / "a.vrt")]
    for environment in (None, {**os.environ, **OFFLINE_OPTIONS}):  # as multiprocessing, and as map
        with without_servers():
            ended = subprocess.run(started, env=environment, capture_output=True, text=True)
        assert (ended.stdout, ended.returncode) == ("read ", 1)
    assert server.requests == []


@pytest.mark.parametrize("remote", [False, True])
def test_processes_on_other_machines_treat_servers_as_this_one(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    """A worker of a cluster does not inherit the environment of the command."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "a.vrt").write_text(VRT.format(url=server.url))
    code = (
        "import json, sys, rasterio; from geotune.utils.remote import treat_servers_by; "
        "treat_servers_by(json.loads(sys.argv[2])); rasterio.open(sys.argv[1]).read()"
    )
    with remote_reading() if remote else without_servers():
        variables = json.dumps(server_variables())
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.vrt"), variables])
    assert (ended.returncode == 0, bool(server.requests)) == (remote, remote)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://user:secret@host/a.tif", "has a user name or password"),
        ("https://host/a.tif?X-Amz-Signature=secret", "has a query"),
        ("ftp://host/a.tif", "is not supported"),
    ],
)
@pytest.mark.usefixtures("allowed")
def test_credentials_in_addresses_are_refused_and_not_repeated(address: str, words: str) -> None:
    with pytest.raises(GeotuneError, match=words) as error:
        find_files(address)
    assert error.value.code == "file-remote"
    assert "secret" not in str(error.value)


@pytest.mark.usefixtures("allowed")
def test_scenes_are_found_by_pattern_and_read(server: FileServer, tiny_scenes: Path) -> None:
    found = find_files(f"{server.url}/scenes/*.tif")
    assert list(found) == ["a", "b", "c", "d"]
    window = Window(8, 8, 32, 32)
    for name, path in found.items():
        local = open_raster(tiny_scenes / "scenes" / f"{name}.tif")
        remote = open_raster(path)
        assert remote.bands == local.bands and remote.crs == local.crs
        np.testing.assert_array_equal(remote.read(window), local.read(window))
    assert list(find_files(f"{server.url}/scenes/{{tile}}.tif")) == ["a", "b", "c", "d"]


@pytest.mark.usefixtures("allowed")
def test_only_the_needed_part_of_a_scene_is_transferred(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with rasterio.open(
        tmp_path / "big.tif", "w", driver="COG", count=1, height=2048, width=2048, dtype="uint16",
        crs="EPSG:32633", transform=from_origin(500_000, 5_000_000, 10, 10), BLOCKSIZE=256,
    ) as file:  # fmt: skip
        file.write(rng.integers(0, 60_000, (1, 2048, 2048)).astype(np.uint16))
    size = (tmp_path / "big.tif").stat().st_size
    with serving_files(tmp_path) as state:
        source = open_raster(find_files(f"{state.url}/big.tif")["big"])
        assert source.read(Window(100, 100, 64, 64)).shape == (1, 64, 64)
        assert state.sent < size / 10
        assert any(spec for _, _, spec in state.requests)
        names = {path for _, path, _ in state.requests}
        assert names == {"/big.tif"}  # no side files are looked for


@pytest.mark.usefixtures("allowed")
def test_vector_labels_are_read(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {"class": ["ship"]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326"
    )
    frame.to_file(tmp_path / "a.geojson")
    frame.to_file(tmp_path / "a.gpkg")
    with serving_files(tmp_path) as state:
        for name in ("a.geojson", "a.gpkg"):
            read = read_features(to_path(f"{state.url}/{name}"))
            assert read["class"].tolist() == ["ship"]
        with pytest.raises(GeotuneError, match="label file not found"):
            read_features(to_path(f"{state.url}/b.gpkg"))


@pytest.mark.usefixtures("allowed")
def test_missing_files_and_failing_servers_are_named(server: FileServer) -> None:
    with pytest.raises(GeotuneError, match="file not found") as error:
        find_files(f"{server.url}/scenes/z.tif")
    assert error.value.code == "scenes-missing"
    server.status = 403
    with pytest.raises(GeotuneError, match=r"y\.tif: cannot be read from the server") as error:
        find_files(f"{server.url}/scenes/y.tif")
    assert error.value.code == "remote-unavailable"
    with pytest.raises(GeotuneError, match="cannot be read from the server"):
        find_files("http://127.0.0.1:9/*.tif")  # nothing listens there


def test_the_permission_ends(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "7")
    before = dict(os.environ)
    with geotune.remote_reading():
        assert os.environ[ENABLED] == "1"
        assert os.environ["GDAL_HTTP_TIMEOUT"] == "7"  # the user's own
        assert os.environ["GDAL_HTTP_MAX_RETRY"] == GDAL_OPTIONS["GDAL_HTTP_MAX_RETRY"]
    assert dict(os.environ) == before
    with geotune.remote_reading(False):
        assert ENABLED not in os.environ


@pytest.mark.slow
def test_training_and_prediction_from_a_server_are_those_from_files(
    server: FileServer, tiny_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    runs = {}
    for name, root in (("local", None), ("remote", server.url)):
        changes: dict[str, Any] = {"train.run": str(tmp_path / name), "train.epochs": 1}
        if root:
            changes["data.scenes"] = f"{root}/scenes/*.tif"
            changes["data.labels"] = f"{root}/labels/{{stem}}.tif"
        with geotune.remote_reading(root is not None):
            runs[name] = geotune.fit(tiny_values(changes)).run
            geotune.test(runs[name])
            scene = changes.get("data.scenes", tiny_values()["data"]["scenes"]).replace("*", "d")
            geotune.predict(runs[name], [scene], tmp_path / f"maps-{name}", stac=True)
    losses = [geotune.load_run(run).history[0]["train/loss"] for run in runs.values()]
    assert losses[0] == losses[1]
    maps = []
    for name in runs:
        with rasterio.open(tmp_path / f"maps-{name}" / "d_classes.tif") as file:
            maps.append(file.read(1))
    np.testing.assert_array_equal(*maps)
    recipe = yaml.safe_load((Path(runs["remote"]) / "recipe.yaml").read_text())
    assert recipe["data"]["scenes"] == f"{server.url}/scenes/*.tif"
    # without permission the same run reads nothing
    server.requests.clear()
    with pytest.raises(GeotuneError, match="add --remote"):
        geotune.test(runs["remote"])
    assert server.requests == []


@pytest.mark.usefixtures("allowed")
def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "0.5")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = to_path(f"http://127.0.0.1:{silent.getsockname()[1]}/a.tif")
        with raises("remote-unavailable", mentions=[path]):
            path.exists()
        with raises("remote-unavailable", mentions=[path]):
            path.read_bytes()
