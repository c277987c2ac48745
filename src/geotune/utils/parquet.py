"""Read Parquet from memory; needs pyarrow, which is imported when it is used."""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any


def read_parquet_bytes(content: bytes) -> Any:
    """The `pyarrow.Table` of a file's bytes. Raises `pyarrow.ArrowException` or `OSError`.

    It is read in the calling thread. `pyarrow.parquet.read_table` reads in threads of its own, one
    of which may hold the bytes until the interpreter ends, and then aborts the whole program.
    """
    parquet: Any = import_module("pyarrow.parquet")
    return parquet.ParquetFile(io.BytesIO(content), pre_buffer=False).read(use_threads=False)
