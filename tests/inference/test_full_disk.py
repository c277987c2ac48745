"""A file system that takes no more while a map is written."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geotune.inference.geotiff import GeoTiffWriter
from geotune.inference.segmentation import _temporary
from helpers.errors import raises

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let writes fail that make a file larger than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("missing", [100, 1_000, 60_000])
def test_a_map_is_whole_or_an_error(tmp_path: Path, missing: int) -> None:
    values = np.random.default_rng(0).integers(0, 255, (1, 256, 256)).astype(np.uint8)

    def write(path: Path) -> None:
        grid = from_origin(0, 0, 1, 1)
        with GeoTiffWriter(path, shape=(256, 256), crs=None, transform=grid, bands=["a"]) as file:
            file.write(0, 0, values)
            file.finish("AVERAGE")

    write(tmp_path / "whole.tif")
    with rasterio.open(tmp_path / "whole.tif") as file:
        np.testing.assert_array_equal(file.read(), values)
    size = (tmp_path / "whole.tif").stat().st_size
    with raises("output-not-writable"), largest_file(size - missing):
        write(tmp_path / "cut.tif")


def test_scores_on_disk_have_their_space(tmp_path: Path) -> None:
    scores = _temporary(tmp_path, (300, 700))
    assert scores.shape == (300, 700) and not scores.any()
    assert (tmp_path / "scores").stat().st_blocks * 512 >= scores.nbytes
