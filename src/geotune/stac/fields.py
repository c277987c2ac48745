"""Fields that the items of models and of predictions share."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geotune.utils.colors import palette

STAC_VERSION = "1.1.0"

_EXTENSION = "https://stac-extensions.github.io/{}/schema.json"
MLM = _EXTENSION.format("mlm/v1.5.2")
EO = _EXTENSION.format("eo/v2.0.0")
CLASSIFICATION = _EXTENSION.format("classification/v1.1.0")
PROJECTION = _EXTENSION.format("projection/v2.0.0")
FILE = _EXTENSION.format("file/v2.1.0")
RASTER = _EXTENSION.format("raster/v2.0.0")

GEOJSON = "application/geo+json"
JSON = "application/json"


def identifier(text: str) -> str:
    """Text as an identifier: letters, digits, `-`, `_` and `.`."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip("-.") or "item"


def class_objects(classes: Sequence[str], first: int = 0) -> list[dict[str, Any]]:
    """The classes with the values of a map, counted from `first`, and their colours in it."""
    return [
        {
            "value": first + index,
            "name": identifier(name),
            "description": name,
            "color_hint": "{:02x}{:02x}{:02x}".format(*color),
        }
        for index, (name, color) in enumerate(zip(classes, palette(classes), strict=True))
    ]


def times(extent: Mapping[str, Any], otherwise: str) -> dict[str, Any]:
    """`datetime`, or the first and last day; `otherwise` if the dates are unknown."""
    start, end = extent.get("start"), extent.get("end")
    if start is None or end is None:
        return {"datetime": otherwise}
    if start == end:
        return {"datetime": f"{start}T00:00:00Z"}
    return {
        "datetime": None,
        "start_datetime": f"{start}T00:00:00Z",
        "end_datetime": f"{end}T23:59:59Z",
    }


def item(
    name: str,
    extent: Mapping[str, Any],
    properties: Mapping[str, Any],
    *,
    extensions: Sequence[str],
    assets: Mapping[str, Any],
    links: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A STAC item; without a known area its geometry is null and it has no `bbox`."""
    area = {"geometry": extent.get("geometry")}
    if area["geometry"] is not None:
        area["bbox"] = extent["bbox"]
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(extensions),
        "id": identifier(name),
        **area,
        "properties": dict(properties),
        "links": [dict(link) for link in links],
        "assets": dict(assets),
    }


def relative_href(path: Path, folder: Path) -> str:
    """The path of a file as a reference in an item that lies in `folder`."""
    try:
        relative = Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_uri()
    return relative if relative.startswith("../") else f"./{relative}"


def utc(iso: str) -> str:
    """An ISO time in UTC as RFC 3339 with `Z`."""
    return iso.replace("+00:00", "Z")
