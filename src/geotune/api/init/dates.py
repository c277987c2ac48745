"""Images of one place at several dates, by dates in their paths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from geotune.data.raster.tags import find_date
from geotune.data.scenes.patterns import DATE
from geotune.data.scenes.sentinel2 import is_safe
from geotune.utils.text import join_some, pluralize

_DATE = re.compile(rf"(?<!\d)(?:{DATE})(?!\d)")
_TILE = re.compile(r"_(T\d\d[A-Z]{3})_")

HINT = (
    "each date is a scene of its own; for a model that reads all dates of a place together, mark "
    "the date in data.scenes ({scene}_{date}.tif), set backbone.timesteps, and choose a backbone "
    "with a time axis; see docs/how-to/inputs.md"
)


def places_of(folder: Path, images: Sequence[Path]) -> dict[Path, Path]:
    """The path of each image without its date, relative to the folder, for images with a date.

    That of a Sentinel-2 product has the name of its tile.
    """
    places = {}
    for image in images:
        path = image.relative_to(folder)
        tile = _TILE.search(path.name) if is_safe(image) else None
        if tile is not None:
            places[image] = path.with_name(f"{tile[1]}{path.suffix}")
            continue
        dirs, stem = [*map(_without_date, path.parent.parts)], _without_date(path.stem)
        parts = [part for part in (*dirs, stem) if part]
        if parts and (*dirs, stem) != path.with_suffix("").parts:
            places[image] = Path(*parts[:-1], f"{parts[-1]}{path.suffix}")
    return places


def _without_date(name: str) -> str:
    match = next((m for m in _DATE.finditer(name) if find_date(m[0]) is not None), None)
    if match is None:
        return name
    start, end = name[: match.start()].rstrip("_-. "), name[match.end() :].lstrip("_-. ")
    return "_".join(part for part in (start, end) if part)


def describe_dates(places: Mapping[Path, Path]) -> str | None:
    """`2 places with 3 dates (oslo, rome)`; None if no place has several."""
    counts = Counter(places.values())
    several = {place: count for place, count in counts.items() if count > 1}
    if not several:
        return None
    low, high = min(several.values()), max(several.values())
    dates = f"{low} to {high} dates" if low < high else pluralize(low, "date")
    names = join_some([place.stem for place in several], 3)
    return f"{pluralize(len(several), 'place')} with {dates} each ({names})"
