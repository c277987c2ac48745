"""What the browser asks for: pages, descriptions of scenes, tiles, shapes and predictions."""

from __future__ import annotations

import functools
import io
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from geotune.errors import GeotuneError
from geotune.utils.json_values import nan_to_none
from geotune.view.content import MapContent
from geotune.view.layers import FeatureLayer, RasterLayer, SceneLayers
from geotune.view.map_grid import MAX_ZOOM, TILE, MapGrid, Tile
from geotune.view.predict_job import PredictJob
from geotune.view.styles import class_legend

STATIC = {
    "": ("index.html", "text/html; charset=utf-8"),
    "app.css": ("app.css", "text/css; charset=utf-8"),
    "app.js": ("app.js", "text/javascript; charset=utf-8"),
    "map.js": ("map.js", "text/javascript; charset=utf-8"),
    "maplibre-gl.js": ("maplibre/maplibre-gl-csp.js", "text/javascript; charset=utf-8"),
    "maplibre-worker.js": ("maplibre/maplibre-gl-csp-worker.js", "text/javascript; charset=utf-8"),
    "maplibre-gl.css": ("maplibre/maplibre-gl.css", "text/css; charset=utf-8"),
}
"""The files of the page by the name in the address; no other file is ever opened by name."""

CACHE_BYTES = 96 * 2**20
"""Tiles and shapes are kept up to this size."""

RENDERING = 4
"""Tiles that are made at the same time, which bounds the memory."""


class Reply(NamedTuple):
    """What the browser gets.

    Attributes:
        status: HTTP status.
        type: media type.
        body: the content.
        lasting: whether the browser may keep it.
        location: the address that it is sent on to.
    """

    status: int
    type: str
    body: bytes
    lasting: bool = False
    location: str = ""


class Pages:
    """Answers for the content of a map, from any thread.

    Args:
        content: the scenes; they are addressed by their number, layers by theirs in the scene.
    """

    def __init__(self, content: MapContent) -> None:
        self.content = content
        self.job = PredictJob(content)
        self._cache: OrderedDict[object, Reply] = OrderedDict()
        self._cached_bytes = 0
        self._cache_lock = threading.Lock()
        self._rendering = threading.Semaphore(RENDERING)

    def static(self, name: str) -> Reply:
        """A file of the page."""
        if name not in STATIC:
            return not_found()
        file, media_type = STATIC[name]
        return Reply(200, media_type, _static_file(file), lasting=name.startswith("maplibre"))

    def overview(self) -> Reply:
        """Title, scenes, worst windows and notes."""
        content = self.content
        numbers = {name: i for i, name in enumerate(content.names)}
        scenes = [{"name": name, "split": content.splits.get(name, "")} for name in content.names]
        windows = [
            {"number": i, "split": w.split, "rank": w.rank, "score": w.score,
             "scene": numbers[w.scene]}
            for i, w in enumerate(content.windows)
        ]  # fmt: skip
        return _json(
            {"title": content.title, "scenes": scenes, "windows": windows, "notes": content.notes}
        )

    def scene(self, number: int) -> Reply:
        """Place, layers, facts and notes of a scene."""
        if not 0 <= number < len(self.content.names):
            return not_found()
        name = self.content.names[number]

        def describe() -> Reply:
            scene = self.content.scene(name)
            return _json(
                {
                    "bounds": scene.grid.bounds,
                    "local": scene.grid.local,
                    "shape": scene.grid.shape,
                    "layers": [_described(layer, scene.grid) for layer in scene.layers],
                    "facts": scene.facts,
                    "notes": scene.notes,
                    "predictable": bool(self.content.predictors(name)),
                    "version": scene.version,
                }
            )

        return _answer(describe)

    def window(self, number: int) -> Reply:
        """The outline of a worst window in degrees."""
        if not 0 <= number < len(self.content.windows):
            return not_found()
        window = self.content.windows[number]

        def outline() -> Reply:
            grid = self.content.scene(window.scene).grid
            shape = grid.features_to_lonlat(np.array([window.shape], dtype=object), window.crs)[0]
            return _json({"bounds": shape.bounds, "outline": [*map(list, shape.exterior.coords)]})

        return _answer(outline)

    def at(self, number: int, lon: float, lat: float) -> Reply:
        """Names and values of each raster of a scene at a place."""
        if not 0 <= number < len(self.content.names) or not (abs(lon) <= 720 and abs(lat) <= 90):
            return not_found()

        def values() -> Reply:
            scene = self.content.scene(self.content.names[number])
            groups = [
                {"title": layer.title, "role": layer.role, "rows": rows}
                for layer in reversed(scene.layers)
                if isinstance(layer, RasterLayer)
                and layer.answers
                and (rows := layer.describe(scene.grid, lon, lat))
            ]
            return _json({"groups": groups, "pixel": scene.grid.pixel_at(lon, lat)})

        return _answer(values)

    def tile(self, number: int, layer_number: int, tile: Tile) -> Reply:
        """A tile as PNG."""
        if not tile.exists:
            return Reply(404, "text/plain", b"no such tile")

        def draw(scene: SceneLayers, layer: Any) -> Reply:
            if not isinstance(layer, RasterLayer):
                return not_found()
            with self._rendering:
                colors = layer.tile(scene.grid, tile)
            body = _empty_tile() if colors is None else _png(colors)
            return Reply(200, "image/png", body, lasting=True)

        return self._of_layer(number, layer_number, tile, draw)

    def features(self, number: int, layer_number: int) -> Reply:
        """The shapes of a layer as GeoJSON."""

        def collect(scene: SceneLayers, layer: Any) -> Reply:
            if not isinstance(layer, FeatureLayer):
                return not_found()
            with self._rendering:
                return _json(layer.features(scene.grid))

        return self._of_layer(number, layer_number, None, collect)

    def start_prediction(self, number: int) -> Reply:
        """Start to predict a scene."""
        if not 0 <= number < len(self.content.names):
            return not_found()
        started = self.job.start(self.content.names[number])
        return _json(self.job.state(), 202 if started else 409)

    def prediction(self) -> Reply:
        """How far the prediction is."""
        return _json(self.job.state())

    def _of_layer(
        self, number: int, layer_number: int, key: object, make: Callable[[SceneLayers, Any], Reply]
    ) -> Reply:
        if not 0 <= number < len(self.content.names):
            return not_found()

        def reply() -> Reply:
            scene = self.content.scene(self.content.names[number])
            if not 0 <= layer_number < len(scene.layers):
                return not_found()
            cache_key = scene.version, layer_number, key
            made = self._get(cache_key)
            return made or self._put(cache_key, make(scene, scene.layers[layer_number]))

        return _answer(reply)

    def _get(self, key: object) -> Reply | None:
        with self._cache_lock:
            reply = self._cache.get(key)
            if reply is not None:
                self._cache.move_to_end(key)
            return reply

    def _put(self, key: object, reply: Reply) -> Reply:
        size = len(reply.body)
        with self._cache_lock:
            if reply.status == 200 and size < CACHE_BYTES and key not in self._cache:
                self._cache[key] = reply
                self._cached_bytes += size
                while self._cached_bytes > CACHE_BYTES:
                    self._cached_bytes -= len(self._cache.popitem(last=False)[1].body)
        return reply


def not_found() -> Reply:
    """There is nothing at that address."""
    return Reply(404, "text/plain", b"not found")


def _answer(make: Callable[[], Reply]) -> Reply:
    """The reply, or the reason why a file cannot be shown."""
    try:
        return make()
    except GeotuneError as error:
        return Reply(422, "text/plain; charset=utf-8", str(error).encode())


def _described(layer: RasterLayer | FeatureLayer, grid: MapGrid) -> dict[str, Any]:
    values: dict[str, Any] = {"title": layer.title, "role": layer.role, "visible": layer.visible}
    if isinstance(layer, FeatureLayer):
        colors = class_legend(layer.colored_as or layer.classes)
        legend = {"classes": [each for each in colors if each["name"] in layer.classes]}
        return {**values, "type": "features", "geometry": layer.geometry, "legend": legend}
    own = layer.grid or grid
    return {
        **values,
        "type": "raster",
        "minzoom": own.min_zoom(layer.max_step),
        "maxzoom": min(own.native_zoom, MAX_ZOOM),
        "bounds": own.bounds,
        "legend": layer.style.legend,
    }


def _json(values: Any, status: int = 200) -> Reply:
    text = json.dumps(nan_to_none(values), ensure_ascii=False, allow_nan=False)
    return Reply(status, "application/json", text.encode())


def _png(colors: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(colors).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


@functools.cache
def _empty_tile() -> bytes:
    return _png(np.zeros((TILE, TILE, 4), dtype=np.uint8))


@functools.cache
def _static_file(name: str) -> bytes:
    return resources.files("geotune.view").joinpath("static", name).read_bytes()
