"""Parquet from memory."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from geotune.utils.parquet import read_parquet_bytes

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def test_a_table_survives() -> None:
    table = pa.table({"tile": ["0_0", "0_64"], "windows": [4, 9]})
    table = table.replace_schema_metadata({"plan": "abc"})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    read = read_parquet_bytes(buffer.getvalue())
    assert read.equals(table, check_metadata=True)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_no_thread_is_left_that_could_hold_the_bytes_when_the_interpreter_ends() -> None:
    script = """
import io, os
import pyarrow as pa
from pyarrow import parquet
from geotune.utils.parquet import read_parquet_bytes

def threads():  # the background threads of Arrow's allocator hold no Python objects
    found = [open(f"/proc/self/task/{n}/comm").read() for n in os.listdir("/proc/self/task")]
    return len([name for name in found if "jemalloc" not in name])

buffer = io.BytesIO()
parquet.write_table(pa.table({"windows": list(range(1000)), "more": list(range(1000))}), buffer)
before = threads()
read_parquet_bytes(buffer.getvalue())
print(threads() - before)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "0", result.stderr
