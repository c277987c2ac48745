"""The STAC catalogue of a map: one item per scene, with the size and hash of each file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geotune
from geotune.data.raster.source import RasterSource
from geotune.stac.fields import FILE, GEOJSON, JSON, STAC_VERSION, identifier
from geotune.stac.prediction_item import prediction_item

CATALOG = "catalog.json"
SHA256 = "1220"
"""Prefix of a multihash: SHA-256, 32 bytes."""


def scene_item(
    name: str,
    files: Sequence[Path],
    sources: Mapping[str, RasterSource],
    folder: Path,
    *,
    classes: Sequence[str],
    models: Mapping[str, str],
    hashes: Mapping[str, str],
    remote: bool,
) -> bytes:
    """The item of a scene, in the folder of its files.

    Args:
        name: of the scene.
        files: that were written, the main one first.
        sources: the images.
        folder: of the files.
        classes: of the model.
        models: references to the models' items, with their titles.
        hashes: SHA-256 of each file, by its name.
        remote: whether the folder is uploaded, so that no path is relative to it.
    """
    item = prediction_item(
        name,
        files,
        sources,
        folder,
        classes=classes,
        models=models,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=geotune.__version__,
    )
    sizes = {path.name: path.stat().st_size for path in files}
    for asset in item["assets"].values():
        file = asset["href"].removeprefix("./")
        asset["file:size"] = sizes[file]
        asset["file:checksum"] = SHA256 + hashes[file]
    item["stac_extensions"].append(FILE)
    if remote:
        for link in item["links"]:
            if link["href"] not in models:
                link["href"] = (folder / link["href"]).resolve().as_uri()
    parent = {"href": f"../{CATALOG}", "type": JSON}
    item["links"] += [{"rel": rel, **parent} for rel in ("root", "parent")]
    return json.dumps(item, indent=1, ensure_ascii=False).encode()


def catalog(title: str, items: Mapping[str, str], models: Sequence[str]) -> bytes:
    """The catalogue of scenes.

    Args:
        title: of the map.
        items: references to the scenes' items, with their names.
        models: references to the items of the models.
    """
    links = [{"rel": "root", "href": f"./{CATALOG}", "type": JSON}]
    links += [
        {"rel": "item", "href": href, "type": GEOJSON, "title": name}
        for href, name in items.items()
    ]
    links += [{"rel": "derived_from", "href": href, "type": GEOJSON} for href in models]
    values: dict[str, Any] = {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": identifier(title),
        "title": title,
        "description": f"Mapped by geotune {geotune.__version__}",
        "links": links,
    }
    return json.dumps(values, indent=1, ensure_ascii=False).encode()
