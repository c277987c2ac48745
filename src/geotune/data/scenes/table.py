"""Scenes listed in a table: CSV or GeoParquet (STAC in `stac.py`).

```
image,label,split,city,date
2019/a.tif,labels/a.geojson,train,durban,2019-05-14
```

`image` may be a pattern with `{band}` or `{date}`. Paths are relative to the table's folder.
`name`, `label`, `split` and `date` are optional; `data.split.by` can use any other column.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from geotune.data.issues import ErrorCollector, prefix_errors
from geotune.data.scenes.entry import SceneEntry, parse_date, parse_split
from geotune.data.scenes.find import Names, find_files, readable_path
from geotune.data.scenes.stac import read_stac
from geotune.data.text_io import read_csv
from geotune.errors import GeotuneError, check_exists
from geotune.utils.paths import existing_path
from geotune.utils.remote import scheme_of, to_path

CSV = (".csv",)
PARQUET = (".parquet", ".geoparquet")
STAC = (".json", ".geojson")

Row = Mapping[str, str]


def is_table(path: str) -> bool:
    """Whether a path is that of a table of scenes rather than an image."""
    return Path(path).suffix.lower() in (*CSV, *PARQUET, *STAC)


def read_scene_table(
    path: Path, bands: Names | None, wanted_bands: Sequence[str] | None, errors: ErrorCollector
) -> dict[str, SceneEntry]:
    """Read the scenes of a table by name, in its order.

    `bands` and `wanted_bands` as in `find_files`. Raises `GeotuneError` for an unreadable table and
    an invalid row or item; `errors` may collect those of single rows.
    """
    check_exists(path, "table of scenes", "data.scenes")
    if path.suffix.lower() in STAC:
        listed = read_stac(path, wanted_bands, errors)
    else:
        rows = _read_csv(path) if path.suffix.lower() in CSV else _read_parquet(path)
        listed = _entries(path, rows, bands, wanted_bands, errors)
    entries: dict[str, SceneEntry] = {}
    for where, name, entry in listed:
        with errors.catch(name, path):
            if name in entries:
                raise GeotuneError(
                    f"{path}: {where}: another scene is named {name}; add a column name",
                    code="scene-duplicate",
                    key="data.scenes",
                    file=path,
                )
            entries[name] = entry
    if not entries and not errors.issues:
        raise GeotuneError(
            f"{path}: lists no scene; expected one per row",
            code="scenes-missing",
            key="data.scenes",
            file=path,
        )
    return entries


def _entries(
    path: Path,
    rows: Iterator[tuple[str, Row]],
    bands: Names | None,
    wanted_bands: Sequence[str] | None,
    errors: ErrorCollector,
) -> Iterator[tuple[str, str, SceneEntry]]:
    """Yield the location of each row for messages, the name of its scene, and its entry."""
    for line, row in rows:
        where = f"{path}: {line}"
        with errors.catch(row.get("name") or row.get("image") or line, path):
            if not row.get("image"):
                raise GeotuneError(
                    f"{where}: the column image is empty; expected a path",
                    code="row-invalid",
                    file=path,
                )
            with prefix_errors(where):
                pattern = _relative_to_table(path, row["image"])
                scenes = find_files(pattern, bands=bands, wanted_bands=wanted_bands)
            if len(scenes) > 1:
                raise GeotuneError(
                    f"{where}: {row['image']} matches {len(scenes)} scenes "
                    f"({', '.join(scenes)[:80]}); expected one scene per row",
                    code="row-invalid",
                    file=path,
                )
            [(name, files)] = scenes.items()
            label = None
            if row.get("label"):
                with prefix_errors(where):
                    text = readable_path(row["label"])
                    remote = scheme_of(text) is not None
                    label = to_path(text) if remote else existing_path(path.parent / text)
            split = parse_split(row.get("split", ""), where)
            acquired = parse_date(row.get("date", ""), where)
            yield line, row.get("name") or name, SceneEntry(files, label, split, acquired, row)


def _relative_to_table(path: Path, pattern: str) -> str:
    """A pattern relative to the table's folder, unless it is absolute."""
    absolute = Path(pattern).is_absolute() or "://" in pattern
    return pattern if absolute else f"{glob.escape(str(path.parent))}/{pattern}"


def _read_csv(path: Path) -> Iterator[tuple[str, Row]]:
    rows = read_csv(path)
    _, header = next(rows, ("", []))
    columns = [name.strip() for name in header]
    _require_image(path, columns)
    for line, cells in rows:
        if len(cells) != len(columns):
            raise GeotuneError(
                f"{path}: {line}: has {len(cells)} values for {len(columns)} columns; correct it",
                code="row-invalid",
                file=path,
            )
        yield line, dict(zip(columns, (cell.strip() for cell in cells), strict=True))


def _read_parquet(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise GeotuneError(
            f"{path}: reading Parquet requires pyarrow: pip install 'geotune[lists]'",
            code="dependency-missing",
            file=path,
        ) from error
    try:
        table = read_table(path)
    except (ArrowException, OSError) as error:
        raise GeotuneError(
            f"{path}: cannot be read as Parquet ({error}); write it again",
            code="file-unreadable",
            file=path,
        ) from error
    columns = [name for name in table.column_names if name not in ("geometry", "bbox")]
    _require_image(path, columns)
    for number, values in enumerate(table.select(columns).to_pylist(), 1):
        row = {name: "" if value is None else str(value) for name, value in values.items()}
        yield f"row {number}", row


def _require_image(path: Path, columns: Sequence[str]) -> None:
    if "image" not in columns:
        raise GeotuneError(
            f"{path}: has the columns {', '.join(columns)[:80] or 'none'}; expected image, a path "
            "relative to the table's folder, and optionally name, label, split and date",
            code="column-missing",
            file=path,
        )
