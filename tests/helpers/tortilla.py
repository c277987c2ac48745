"""Writer of small `.tortilla` files with the layout of GEO-Bench-2's."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEADER = 200


def pack(files: Sequence[tuple[Mapping[str, Any], bytes]]) -> bytes:
    """A tortilla of files with the other columns of their index rows."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    data, rows = b"", []
    for row, content in files:
        place = {"tortilla:offset": HEADER + len(data), "tortilla:length": len(content)}
        rows.append({**row, **place})
        data += content
    index = io.BytesIO()
    write_table(pa.Table.from_pylist(rows), index)
    header = struct.pack("<2sqq", b"#y", HEADER + len(data), len(index.getvalue()))
    return header.ljust(HEADER, b"\0") + data + index.getvalue()


def sample(name: str, split: str, items: Sequence[tuple[str, bytes]], **columns: Any) -> Any:
    """A sample of items (format and content), to be packed with others."""
    rows = [
        ({"tortilla:id": str(i), "tortilla:file_format": kind, "tortilla:data_split": split}, data)
        for i, (kind, data) in enumerate(items)
    ]
    row = {
        "tortilla:id": name,
        "tortilla:file_format": "TORTILLA",
        "tortilla:data_split": split,
        "stac:raster_shape": [48, 48],
        **columns,
    }
    return row, pack(rows)


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    file = io.BytesIO()
    write_table(pa.Table.from_pylist(list(rows)), file)
    return file.getvalue()


def content(path: Path) -> bytes:
    """The content of a file, which is removed."""
    data = path.read_bytes()
    path.unlink()
    return data
