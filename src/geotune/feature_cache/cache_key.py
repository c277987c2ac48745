"""What kept features depend on: names that change when it does.

A set of features is named by what they all depend on (weights, bands, normalisation, taps,
precision); in it a sample by its files, their sizes and times of change, its window, and which of
the eight ways it lies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geotune.errors import GeotuneError


def feature_set_name(about: Mapping[str, Any], readable: str) -> str:
    """The folder of a set of features: something for people, and a hash of all it depends on."""
    text = json.dumps(about, sort_keys=True, default=str)
    slug = "".join(c if c.isalnum() or c in "._-" else "-" for c in readable)
    return f"{slug[-60:]}-{_hash(text)[:12]}"


def file_stamp(path: Path) -> list[Any]:
    """A file's whole path, size and time of change. Raises `GeotuneError` where it is gone."""
    try:
        status = path.stat()
    except OSError as error:
        raise GeotuneError(f"{path}: cannot be found any more ({error.strerror})") from error
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def scene_key(stamps: Sequence[Sequence[Any]], bands: Sequence[Any]) -> str:
    """A scene: the stamps of its files, and where in them each band is."""
    return _hash(json.dumps([stamps, bands], default=str))


def sample_key(source: str, window: Sequence[int], way: int) -> str:
    """A window (row, column, height, width) of a scene, laid one of the eight ways."""
    return _hash(f"{source} {' '.join(map(str, window))} {way}")


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
