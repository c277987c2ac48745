"""The server over real HTTP: what it answers, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geotune.errors import GeotuneError
from geotune.utils.colors import palette
from geotune.view.content import MapContent
from geotune.view.map_grid import TILE, MapGrid, Tile
from geotune.view.open_content import open_content
from geotune.view.server import HOST, MapServer
from helpers.view_folder import CLASSES, SIDE, write_folder

Serve = Callable[..., Any]


@pytest.fixture(scope="module")
def grid(folder: Path) -> MapGrid:
    return open_content([folder], folder).scene("harbour").grid


def layer_numbers(client: Any) -> dict[str, int]:
    layers = json.loads(client.ask("scenes/0").body)["layers"]
    return {layer["title"]: i for i, layer in enumerate(layers)}


def tiles_over(grid: MapGrid, z: int) -> list[Tile]:
    """All tiles that a scene touches, a margin included."""
    lon, lat = np.array(grid.bounds[::2]), np.array(grid.bounds[1::2])
    xs = ((lon + 180) / 360 * 2**z).astype(int)
    y = (1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * 2**z
    ys = np.sort(y.astype(int))
    return [Tile(z, x, y) for x in range(xs[0], xs[1] + 1) for y in range(ys[0], ys[1] + 1)]


def pixels(client: Any, layer: int, tile: Tile) -> np.ndarray[Any, Any]:
    answer = client.ask(f"tiles/0/{layer}/1/{tile.z}/{tile.x}/{tile.y}.png")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    rgba: np.ndarray[Any, Any] = np.asarray(Image.open(io.BytesIO(answer.body)).convert("RGBA"))
    assert rgba.shape == (TILE, TILE, 4)
    return rgba


def test_a_scene_has_the_layers_of_its_files(serve: Serve, folder: Path) -> None:
    client = serve(folder)
    overview = json.loads(client.ask("overview").body)
    assert overview["scenes"] == [{"name": "harbour", "split": ""}]
    scene = json.loads(client.ask("scenes/0").body)
    assert [(layer["title"], layer["role"]) for layer in scene["layers"]] == [
        ("image", "image"),
        ("confidence", "confidence"),
        ("probability of water", "confidence"),
        ("probability of ship", "confidence"),
        ("entropy", "confidence"),
        ("classes", "prediction"),
        ("polygons", "prediction"),
    ]
    legend = scene["layers"][5]["legend"]["classes"]
    assert [entry["name"] for entry in legend] == list(CLASSES)
    assert scene["notes"] == [] and not scene["predictable"] and not scene["local"]
    assert scene["shape"] == [SIDE, SIDE]


def test_tiles_show_each_class_in_its_colour(serve: Serve, folder: Path, grid: MapGrid) -> None:
    client = serve(folder)
    classes = layer_numbers(client)["classes"]
    counts: dict[tuple[int, ...], int] = {}
    for tile in tiles_over(grid, grid.native_zoom):
        colors, numbers = np.unique(
            pixels(client, classes, tile).reshape(-1, 4), axis=0, return_counts=True
        )
        for color, number in zip(colors.tolist(), numbers.tolist(), strict=True):
            counts[tuple(color)] = counts.get(tuple(color), 0) + number
    _, water, ship = palette(CLASSES)
    # background is transparent, as is what lies around the scene
    assert set(counts) == {(0, 0, 0, 0), (*water, 255), (*ship, 255)}
    assert counts[*water, 255] == pytest.approx(counts[*ship, 255], rel=0.05)


def test_a_tile_far_away_is_empty(serve: Serve, folder: Path) -> None:
    assert not pixels(serve(folder), 0, Tile(12, 0, 0)).any()


def test_a_click_tells_class_probabilities_and_pixel(
    serve: Serve, folder: Path, grid: MapGrid
) -> None:
    (lon,), (lat,) = grid.lonlat(np.array([80.5]), np.array([40.5]))
    answer = json.loads(serve(folder).ask(f"scenes/0/at?lon={lon}&lat={lat}").body)
    assert answer["pixel"] == [80, 40]
    rows = {group["title"]: group["rows"] for group in answer["groups"]}
    assert rows["classes"] == [["class", "ship"]]
    assert rows["confidence"][0][0] == "ship"
    assert dict(rows["confidence"])["ship"].startswith("100")
    assert dict(rows["image"]) == {"red": "2.5", "nir": "25"}


def test_a_click_outside_tells_nothing(serve: Serve, folder: Path) -> None:
    answer = json.loads(serve(folder).ask("scenes/0/at?lon=0&lat=0").body)
    assert answer == {"groups": [], "pixel": None}


def test_polygons_lie_on_the_scene_and_have_scores(
    serve: Serve, folder: Path, grid: MapGrid
) -> None:
    client = serve(folder)
    answer = client.ask(f"features/0/{layer_numbers(client)['polygons']}/1.json")
    shapes = json.loads(answer.body)["features"]
    assert {shape["properties"]["class"] for shape in shapes} == {"water", "ship"}
    assert all(shape["properties"]["score"] > 0.9 for shape in shapes)
    west, south, east, north = grid.bounds
    for shape in shapes:
        for lon, lat in shape["geometry"]["coordinates"][0]:
            assert west - 1e-6 <= lon <= east + 1e-6 and south - 1e-6 <= lat <= north + 1e-6


def test_a_scene_without_crs_is_shown_in_its_proportions(serve: Serve, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, crs=None)
    client = serve(folder)
    scene = json.loads(client.ask("scenes/0").body)
    west, south, east, north = scene["bounds"]
    assert scene["local"] and (west + east, south + north) == pytest.approx((0, 0))
    answer = json.loads(client.ask(f"scenes/0/at?lon={east * 0.8}&lat=0").body)
    assert answer["pixel"][0] == 86
    classes = layer_numbers(client)["classes"]
    zoom = scene["layers"][classes]["maxzoom"]
    half = 2 ** (zoom - 1)
    colors = pixels(client, classes, Tile(zoom, half, half)).reshape(-1, 4)  # its lower right
    assert {tuple(color) for color in colors.tolist()} == {
        (0, 0, 0, 0), *((*color, 255) for color in palette(CLASSES)[1:]),
    }  # fmt: skip
    shapes = json.loads(client.ask(f"features/0/{classes + 1}/1.json").body)["features"]
    assert max(lon for s in shapes for lon, _ in s["geometry"]["coordinates"][0]) == pytest.approx(
        east, rel=1e-3
    )


def test_every_answer_forbids_the_network(serve: Serve, folder: Path) -> None:
    client = serve(folder)
    for path in ("", "app.js", "overview", "nothing", "tiles/0/0/1/0/0/0.png"):
        headers = client.ask(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_the_page_names_no_other_site(serve: Serve, folder: Path) -> None:
    client = serve(folder)
    for path in ("", "app.js", "map.js", "app.css"):
        answer = client.ask(path)
        assert answer.status == 200
        assert re.findall(rb"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", answer.body) == []
    for path in ("maplibre-gl.js", "maplibre-worker.js", "maplibre-gl.css"):
        assert client.ask(path).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd",
        "..%2f..%2fetc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "static/../../server.py",
        "maplibre/LICENSE.txt",
        "/etc/passwd",
        "app.js/",
        "app.js%00.png",
        "features/0/../0/1.json",
        "scenes/harbour",
        "scenes/-1",
        "scenes/1",
        "scenes/99999999999999999999",
        "windows/0",
        "features/0/0/1.json",
        "features/0/99/1.json",
        "tiles/0/6/1/10/0/0.png",
        "tiles/1/0/1/0/0/0.png",
    ],
)
def test_other_paths_are_not_found(serve: Serve, folder: Path, path: str) -> None:
    answer = serve(folder).ask(path)
    assert (answer.status, answer.body) == (404, b"not found")


@pytest.mark.parametrize(
    "tile",
    [
        "25/0/0", "99999999/0/0", "3/8/0", "3/0/8", "24/16777216/0", "0/99999999/99999999",
        "3/123456789012345678901234567890/0", "3/-1/0", "3/1.5/0", "1e3/0/0",
    ],
)  # fmt: skip
def test_tiles_that_do_not_exist_are_refused(serve: Serve, folder: Path, tile: str) -> None:
    assert serve(folder).ask(f"tiles/0/0/1/{tile}.png").status == 404


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "[::1]:{port}",
     "127.0.0.1:{port}.evil.example", "0.0.0.0:{port}"],
)  # fmt: skip
def test_other_hosts_are_refused(serve: Serve, folder: Path, host: str) -> None:
    client = serve(folder)
    answer = client.ask("overview", Host=host.format(port=client.server.port))
    assert answer.status == 421
    assert b"harbour" not in answer.body


def test_localhost_is_answered(serve: Serve, folder: Path) -> None:
    client = serve(folder)
    assert client.ask("overview", Host=f"localhost:{client.server.port}").status == 200


@pytest.mark.parametrize("path", ["/", "/overview", "/wrong/overview", "//overview", "/x"])
def test_nothing_is_told_without_the_token(serve: Serve, folder: Path, path: str) -> None:
    answer = serve(folder).ask(path, token=False)
    assert answer.status == 404 and b"harbour" not in answer.body


def test_the_address_on_a_browser_s_command_line_works_once(serve: Serve, folder: Path) -> None:
    client = serve(folder)
    target = client.server.opening_address.partition(f":{client.server.port}")[2]
    assert client.server.token not in target
    assert client.ask(target, "HEAD", token=False).status == 404
    assert client.ask(f"{target}overview", token=False).status == 404
    assert client.ask(target, token=False, Host="evil.example").status == 421
    first = client.ask(target, token=False)
    assert (first.status, first.headers["Location"]) == (303, f"/{client.server.token}/")
    assert first.headers["Cache-Control"] == "no-store"
    again = client.ask(target, token=False)
    assert again.status == 404 and client.server.token.encode() not in again.body


def test_many_connections_at_once_are_answered(serve: Serve, folder: Path) -> None:
    client = serve(folder)
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: client.ask("overview").status, range(100)))
    assert answers == [200] * 100


def test_another_site_may_not_start_anything(serve: Serve, folder: Path) -> None:
    client = serve(folder)
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{client.server.port + 1}"):
        assert client.ask("scenes/0/predict", "POST", Origin=origin).status == 403
    own = f"http://{HOST}:{client.server.port}"
    assert client.ask("scenes/0/predict", "POST", Origin=own).status == 409  # nothing predicts it


def test_methods_bodies_and_long_addresses_are_refused(serve: Serve, folder: Path) -> None:
    client = serve(folder)
    assert client.ask("overview", "POST").status == 405
    assert client.ask("scenes/0/predict").status == 405
    assert client.ask("scenes/0/predict", "POST", body=b"x" * 10).status == 413
    assert client.ask("x" * 2000).status == 414
    for method in ("PUT", "DELETE", "OPTIONS"):
        answer = client.ask("overview", method)
        assert answer.status == 501 and b"<" not in answer.body
    head = client.ask("overview", "HEAD")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    "query",
    ["", "lon=1", "lon=a&lat=b", "lon=nan&lat=1", "lon=inf&lat=1", "lon=1&lat=1" + "&a=1" * 9],
)
def test_places_that_are_no_numbers_are_refused(serve: Serve, folder: Path, query: str) -> None:
    assert serve(folder).ask(f"scenes/0/at?{query}").status == 400


@pytest.mark.parametrize(
    "text", [b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 70_000]
)
def test_what_is_no_http_gets_one_line(serve: Serve, folder: Path, text: bytes) -> None:
    client = serve(folder)
    with socket.create_connection((HOST, client.server.port), timeout=30) as connection:
        connection.sendall(text)
        answer = b""
        try:
            while data := connection.recv(65536):
                answer += data
        except ConnectionResetError:  # it closed while we were still sending
            pass
    assert b"Traceback" not in answer
    assert not answer or re.match(rb"HTTP/1.\d (400|414|421|505) ", answer)
    assert client.ask("overview").status == 200  # it still answers


def test_a_broken_map_becomes_a_note(serve: Serve, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    broken = folder / "harbour_classes.tif"
    broken.write_bytes(b"II*\0" + b"\xff" * 200)
    (folder / "harbour_polygons.gpkg").write_bytes(b"SQLite format 3\0" + b"\0" * 100)
    scene = json.loads(serve(folder).ask("scenes/0").body)
    assert "classes" not in [layer["title"] for layer in scene["layers"]]
    assert len(scene["notes"]) == 2
    assert any("harbour_classes.tif" in note for note in scene["notes"])


def test_pixels_that_cannot_be_read_are_an_error_with_the_file(
    serve: Serve, tmp_path: Path, grid: MapGrid
) -> None:
    folder = write_folder(tmp_path)
    client = serve(folder)
    classes = layer_numbers(client)["classes"]
    path = folder / "harbour_classes.tif"
    data = path.read_bytes()
    # the header stays, its pixels are damaged
    path.write_bytes(data[: len(data) // 2] + b"\xff" * (len(data) - len(data) // 2))
    tile = tiles_over(grid, grid.native_zoom)[0]
    answer = client.ask(f"tiles/0/{classes}/1/{tile.z}/{tile.x}/{tile.y}.png")
    assert answer.status == 422
    assert b"harbour_classes.tif" in answer.body and b"Traceback" not in answer.body


def test_an_unexpected_error_is_not_shown(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(folder)

    def fail(self: MapContent, name: str) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(MapContent, "scene", fail)
    answer = client.ask("scenes/0")
    assert answer.status == 500 and b"secret" not in answer.body


def test_the_server_is_for_this_machine_only(serve: Serve, folder: Path) -> None:
    server = serve(folder).server
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(GeotuneError, match="taken by another program") as error:
        MapServer(server.pages.content, server.port)
    assert error.value.code == "port-unavailable"
    with pytest.raises(GeotuneError, match="expected 0 to 65535"):
        MapServer(server.pages.content, 70_000)


def test_tiles_are_kept(serve: Serve, folder: Path, grid: MapGrid) -> None:
    client = serve(folder)
    tile = tiles_over(grid, grid.native_zoom)[0]
    path = f"tiles/0/0/1/{tile.z}/{tile.x}/{tile.y}.png"
    first = client.ask(path)
    assert "max-age" in first.headers["Cache-Control"]
    assert client.ask(path).body == first.body
    assert client.ask("overview").headers["Cache-Control"] == "no-store"
