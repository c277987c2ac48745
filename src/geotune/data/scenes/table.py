"""Scenes that a list names: a CSV, a GeoParquet, or STAC items.

```
image,label,split,city,date
2019/a.tif,labels/a.geojson,train,durban,2019-05-14
```

`image` may be a pattern with `{band}` or `{date}`. Paths start from the list's folder. `name`,
`label`, `split` and `date` may be left out; any other column can part the data (`data.split.by`).
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from geotune.data.issues import ErrorCollector, location
from geotune.data.raster.metadata import date_in
from geotune.data.raster.open_raster import Files
from geotune.data.scenes.find import Names, find_files, on_disk
from geotune.data.splits.base import split_of
from geotune.data.text_io import rows
from geotune.errors import GeotuneError

TABLES = (".csv",)
PARQUET = (".parquet", ".geoparquet")
STAC = (".json", ".geojson")

Row = Mapping[str, str]


@dataclass(frozen=True)
class SceneEntry:
    """What is known of a scene before its files are opened.

    Attributes:
        label: its label file, where a list says it.
        part: train, val or test, where a list says it.
        acquired: the day that a list says; None: what the files say.
        attributes: all that a list says, by column.
    """

    files: Files
    label: Path | None = None
    part: str | None = None
    acquired: date | None = None
    attributes: Row = field(default_factory=dict)


def is_list(path: str) -> bool:
    """Whether a path is that of a list, not of an image."""
    return Path(path).suffix.lower() in (*TABLES, *PARQUET, *STAC)


def read_list(
    path: Path, bands: Names | None, wanted_bands: Sequence[str] | None, faults: ErrorCollector
) -> dict[str, SceneEntry]:
    """The scenes of a list by name, in its order.

    `bands` and `wanted_bands` are those of `find_files`. Raises `GeotuneError` for a list that is
    no such thing, and names the row or item that is wrong; `faults` may keep what concerns one.
    """
    if not path.is_file():
        raise GeotuneError(f"{path}: there is no such list of scenes; mend data.scenes")
    if path.suffix.lower() in STAC:
        from geotune.data.scenes.stac import read_stac

        named = read_stac(path, wanted_bands, faults)
    else:
        table = _csv(path) if path.suffix.lower() in TABLES else _parquet(path)
        named = _scenes(path, table, bands, wanted_bands, faults)
    found: dict[str, SceneEntry] = {}
    for place, name, said in named:
        with faults.of(name, path):
            if name in found:
                raise GeotuneError(
                    f"{path}: {place}: a scene is called {name} already; give them a column name"
                )
            found[name] = said
    if not found and not faults.found:
        raise GeotuneError(f"{path}: names no scene; expected one a row")
    return found


def parse_date(said: str, where: str) -> date | None:
    """The day that a list says; raises `GeotuneError` for what is none."""
    if not said.strip():
        return None
    found = date_in(said)
    if found is None:
        raise GeotuneError(f"{where}: date is {said!r}; expected one such as 2018-10-13")
    return found


def _scenes(
    path: Path,
    table: Iterator[tuple[str, Row]],
    bands: Names | None,
    wanted_bands: Sequence[str] | None,
    faults: ErrorCollector,
) -> Iterator[tuple[str, str, SceneEntry]]:
    for place, row in table:
        where = f"{path}: {place}"
        with faults.of(row.get("name") or row.get("image") or place, path):
            if not row.get("image"):
                raise GeotuneError(f"{where}: has no image; give the column image a path")
            with location(where):
                files = find_files(
                    _from(path, row["image"]), bands=bands, wanted_bands=wanted_bands
                )
            if len(files) > 1:
                raise GeotuneError(
                    f"{where}: {row['image']} finds {len(files)} scenes ({', '.join(files)[:80]}); "
                    "a row is of one"
                )
            [(name, found)] = files.items()
            label = row.get("label")
            said = SceneEntry(
                found,
                _label(path, label, where) if label else None,
                split_of(row.get("split", ""), where),
                parse_date(row.get("date", ""), where),
                row,
            )
            yield place, row.get("name") or name, said


def _label(path: Path, said: str, where: str) -> Path:
    with location(where):
        return path.parent / on_disk(said)


def _from(path: Path, said: str) -> str:
    """A pattern that starts from the list's folder."""
    alone = Path(said).is_absolute() or "://" in said
    return said if alone else f"{glob.escape(str(path.parent))}/{said}"


def _csv(path: Path) -> Iterator[tuple[str, Row]]:
    every = rows(path)
    _, header = next(every, ("", []))
    names = [name.strip() for name in header]
    _require_image(path, names)
    for place, cells in every:
        if len(cells) != len(names):
            raise GeotuneError(
                f"{path}: {place}: has {len(cells)} values for {len(names)} columns; mend the line"
            )
        yield place, dict(zip(names, (cell.strip() for cell in cells), strict=True))


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise GeotuneError(
            f"{path}: reading Parquet needs pyarrow: pip install 'geotune[lists]'"
        ) from error
    try:
        table = read_table(path)
    except (ArrowException, OSError) as error:
        raise GeotuneError(f"{path}: cannot be read as Parquet ({error}); write it anew") from error
    plain = [name for name in table.column_names if name not in ("geometry", "bbox")]
    _require_image(path, plain)
    for number, values in enumerate(table.select(plain).to_pylist(), 1):
        row = {name: "" if value is None else str(value) for name, value in values.items()}
        yield f"row {number}", row


def _require_image(path: Path, names: Sequence[str]) -> None:
    if "image" not in names:
        raise GeotuneError(
            f"{path}: has the columns {', '.join(names)[:80] or 'none'}; expected image, a path "
            "from the list's folder, and perhaps name, label, split and date"
        )
