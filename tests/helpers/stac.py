"""Validation of STAC items without a network."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pystac
from pystac.validation.local_validator import get_local_schema_cache
from pystac.validation.stac_validator import JsonSchemaSTACValidator

SCHEMAS = Path(__file__).parent / "stac_schemas"
"""Of the extensions, from github.com/stac-extensions, as they are (Apache-2.0)."""


@cache
def _validator() -> JsonSchemaSTACValidator:
    validator = JsonSchemaSTACValidator()
    validator.schema_cache = dict(get_local_schema_cache())
    for path in SCHEMAS.glob("*.json"):
        name, _, version = path.stem.rpartition("-")
        uri = f"https://stac-extensions.github.io/{name}/v{version}/schema.json"
        schema = json.loads(path.read_text(encoding="utf-8"))
        # as on the web, where each is found at its own address
        validator.schema_cache[uri] = {**schema, "$id": uri}
    return validator


def check_item(path: Path) -> dict[str, Any]:
    """Validate a file against STAC and the extensions that it names, and read it with pystac.

    Every extension that it has fields of must be among them. Returns the item.
    """
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert _prefixes(values) <= {uri.split("/")[3] for uri in values["stac_extensions"]}
    _validator().validate(
        values, pystac.STACObjectType.ITEM, values["stac_version"], values["stac_extensions"]
    )
    pystac.Item.from_dict(values, migrate=False)
    return values


_EXTENSIONS = {
    "mlm": "mlm",
    "eo": "eo",
    "proj": "projection",
    "raster": "raster",
    "classification": "classification",
    "file": "file",
}


def _prefixes(values: Any) -> set[str]:
    """The extensions whose fields occur."""
    if isinstance(values, list):
        return set().union(*map(_prefixes, values))
    if not isinstance(values, dict):
        return set()
    own = {_EXTENSIONS[p] for key in values if (p := key.partition(":")[0]) in _EXTENSIONS}
    return own.union(*(_prefixes(value) for value in values.values()))
