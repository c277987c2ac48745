"""What is asked for: compared with the plan of a folder, so that only the same map is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geotune
from geotune.adapter_config import ADAPTER_CONFIG
from geotune.data.issues import ErrorCollector
from geotune.data.scenes.entry import SceneEntry
from geotune.errors import GeotuneError
from geotune.hub.download import AdapterSource, adapter_source
from geotune.mapping.options import MapOptions
from geotune.mapping.plan import Plan
from geotune.mapping.scene_files import as_values
from geotune.utils.text import join_some


def adapter_hashes(adapters: Sequence[AdapterSource]) -> list[str]:
    """A hash of each adapter: of its tensors, its backbone and what a prediction depends on."""
    return [
        hashlib.sha256((each.folder / ADAPTER_CONFIG).read_bytes()).hexdigest() for each in adapters
    ]


def make_request(
    adapters: Sequence[AdapterSource],
    options: MapOptions,
    entries: Mapping[str, SceneEntry],
    masks: Mapping[str, Path | None],
    errors: ErrorCollector,
) -> dict[str, Any]:
    """All that the pixels of a map depend on, as plain values; `masks` of quality by scene."""
    request = {
        "geotune": geotune.__version__,
        "adapters": adapter_hashes(adapters),
        "options": options.of_tiles,
        "scenes": {name: as_values(entry, masks[name]) for name, entry in entries.items()},
        "unlisted": errors.scenes,
    }
    values: dict[str, Any] = json.loads(json.dumps(request))
    return values


def check_request(root: str, plan: Plan, request: Mapping[str, Any]) -> None:
    """Raise `GeotuneError` if the plan of a folder is that of another map."""
    theirs, ours = plan.request, request
    if theirs["geotune"] != ours["geotune"]:
        found = f"it was started with geotune {theirs['geotune']}, this is {ours['geotune']}"
    elif theirs["adapters"] != ours["adapters"]:
        found = "its run, or a member of its ensemble, is another one"
    elif theirs["options"] != ours["options"]:
        found = "its options differ: " + join_some(
            [
                f"{name.replace('_', '-')} is {theirs['options'].get(name)}, now {value}"
                for name, value in ours["options"].items()
                if theirs["options"].get(name) != value
            ]
        )
    elif theirs["scenes"] != ours["scenes"] or theirs["unlisted"] != ours["unlisted"]:
        known, named = theirs["scenes"], ours["scenes"]
        differing = [
            f"{name} is " + ("new" if name not in known else "changed" if name in named else "gone")
            for name in sorted({*known, *named})
            if known.get(name) != named.get(name)
        ]
        found = f"its scenes differ: {join_some(differing) or 'rows that cannot be read'}"
    else:
        return
    raise GeotuneError(
        f"{root}: holds another map ({found}); choose another --out, or give the command with "
        "which it was started",
        code="map-exists",
        key="--out",
    )


def absolute(source: Path | str) -> Path | str:
    """A run or adapter for processes in other folders; a name on the hub as it is."""
    return source if adapter_source(source).reference is not None else Path(source).absolute()
