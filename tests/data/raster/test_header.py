"""Stored headers are those of the files as they are now."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS
from rasterio.shutil import copy

from geotune.data.checks.scan_cache import ScanCache
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster import header as header_module
from geotune.data.raster.header import RasterHeader, cached_headers, read_header
from geotune.data.raster.io import open_dataset
from geotune.data.scenes.open_scenes import open_scenes
from helpers.errors import raises

LOCAL_CRS = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose header is read."""
    names: list[str] = []
    of = RasterHeader.of

    def counted(handle: Any, name: str) -> RasterHeader:
        names.append(name)
        return of(handle, name)

    monkeypatch.setattr(header_module.RasterHeader, "of", counted)
    return names


@pytest.fixture
def use_cache(tmp_path: Path) -> Callable[[], Any]:
    """A run that uses the same cache."""

    @contextmanager
    def run() -> Iterator[None]:
        path = tmp_path / "cache" / "scans.sqlite"
        with closing(ScanCache(path)) as cache, cached_headers(cache):
            yield

    return run


def files(folder: Path, write_raster: Any) -> list[Path]:
    """Files that differ in everything a header holds."""
    values = np.arange(24).reshape(2, 3, 4)
    paths = [
        write_raster("plain.tif", values.astype("uint8"), bands=["red", "nir"], nodata=7),
        write_raster("S2_20200131.tif", values.astype("float32"), nodata=float("nan")),
        write_raster("large.tif", values.astype("float32"), nodata=float(np.finfo("f4").min)),
        write_raster("bits.tif", values[0].astype("uint8") % 2, nbits=1),
        write_raster("alpha.tif", np.zeros((4, 3, 4), "uint8"), photometric="RGB", alpha="YES"),
        write_raster("place.tif", values.astype("int16"), crs=None),
        write_raster("local.tif", values.astype("int16"), crs=LOCAL_CRS),
        write_raster("mercator.tif", values.astype("int16"), crs="EPSG:3857"),
        write_raster("degrees.tif", values.astype("int16"), crs="EPSG:4326"),
    ]
    palette = Image.fromarray(values[0].astype("uint8"), "P")
    palette.putpalette([value for i in range(12) for value in (i, 2 * i, 3 * i)])
    palette.save(folder / "palette.png", transparency=3)
    Image.fromarray(np.zeros((3, 4, 3), "uint8")).save(folder / "picture.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    colors = Image.fromarray(np.zeros((3, 4, 3), "uint8"))
    colors.save(folder / "turned.jpg", exif=exif)
    colors.save(folder / "color.png", transparency=(1, 2, 3))
    masked = write_raster("masked.tif", values.astype("uint8"))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as file:
        file.write_mask(values[0] > 3)
    tagged = write_raster("tagged.tif", values.astype("uint16"))
    with rasterio.open(tagged, "r+") as file:
        file.update_tags(ACQUISITION_DATE="2019-05-06")
        file.update_tags(2, CENTRAL_WAVELENGTH_UM="0.842")
        file.scales, file.offsets = (0.1, 0.2), (0, -1)
    pictures = ["palette.png", "picture.jpg", "turned.jpg", "color.png"]
    return [*paths, masked, tagged, *(folder / name for name in pictures)]


def test_second_run_reads_no_header_and_finds_the_same(
    tmp_path: Path, write_raster: Any, use_cache: Any, reads: list[str]
) -> None:
    paths = files(tmp_path, write_raster)
    fresh = [read_header(path) for path in paths]
    with use_cache():
        assert [repr(read_header(path)) for path in paths] == list(map(repr, fresh))
    reads.clear()
    with use_cache():
        found = [read_header(path) for path in paths]
    assert reads == []
    assert list(map(repr, found)) == list(map(repr, fresh))
    for one, other in zip(found, fresh, strict=True):
        assert one.crs == other.crs and one.transform == other.transform
    tagged = found[paths.index(tmp_path / "tagged.tif")]
    assert tagged.acquired == date(2019, 5, 6) and tagged.wavelengths == (None, 0.842)
    assert [header.turned for header in found[-3:]] == [False, True, False]
    assert found[-1].joint_nodata == (1, 2, 3)
    palette = found[paths.index(tmp_path / "palette.png")].palette
    assert palette is not None and palette[2] == (2, 4, 6, 255) and palette[3][3] == 0


def test_scenes_opened_by_stored_headers_are_equal(
    write_raster: Any, use_cache: Any, tmp_path: Path, reads: list[str]
) -> None:
    for name in ("a", "b"):
        write_raster(f"i/{name}.tif", np.ones((3, 8, 8), "float32"))
        write_raster(f"l/{name}.tif", np.ones((8, 8), "uint8"))

    def scenes() -> list[Any]:
        return open_scenes(
            partial(open_labels, classes=["water", "wood"]),
            scenes=f"{tmp_path}/i/*.tif",
            labels=f"{tmp_path}/l/{{stem}}.tif",
        )

    fresh = scenes()
    for run in range(2):
        reads.clear()
        with use_cache():
            assert scenes() == fresh
        assert len(reads) == (4 if run == 0 else 0)


@pytest.mark.parametrize("kind", ["content", "same-size-and-time", "sidecar", "gone"])
def test_header_of_a_changed_file_is_read_again(
    tmp_path: Path, write_raster: Any, use_cache: Any, kind: str
) -> None:
    path = write_raster("a.tif", np.ones((2, 8, 8), "uint8"), bands=["red", "nir"])
    with use_cache():
        assert read_header(path).descriptions == ("red", "nir")
    stat = path.stat()
    if kind == "sidecar":
        (tmp_path / "a.tif.aux.xml").write_text(
            '<PAMDataset><PAMRasterBand band="1"><NoDataValue>5</NoDataValue></PAMRasterBand>'
            "</PAMDataset>"
        )
    elif kind == "gone":
        path.unlink()
    else:
        write_raster("v2/a.tif", np.ones((2, 8, 8), "uint8"), bands=["nir", "red"])
        if kind == "same-size-and-time":
            assert (tmp_path / "v2/a.tif").stat().st_size == stat.st_size
            os.utime(tmp_path / "v2/a.tif", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        shutil.copy2(tmp_path / "v2/a.tif", path)
    with use_cache():
        if kind == "gone":
            with raises("file-missing", file=path):
                read_header(path)
        else:
            header = read_header(path)
            expected = ("red", "nir") if kind == "sidecar" else ("nir", "red")
            assert header.descriptions == expected
            assert header.nodatavals == ((5.0, None) if kind == "sidecar" else (None, None))


def test_header_of_a_vrt_is_read_again_if_its_source_changed(
    tmp_path: Path, write_raster: Any, use_cache: Any, reads: list[str]
) -> None:
    source = write_raster("sources/s.tif", np.ones((2, 8, 8), "uint8"))
    copy(source, tmp_path / "a.vrt", driver="VRT")
    for expected in ([], ["a.vrt"], []):
        with use_cache():
            read_header(tmp_path / "a.vrt")  # the first run fills the cache
        reads.clear()
        if expected:
            stat = source.stat()
            os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        with use_cache():
            read_header(tmp_path / "a.vrt")
        assert reads == expected


def test_pixels_after_a_stored_header_are_those_of_the_file(
    tmp_path: Path, write_raster: Any, use_cache: Any
) -> None:
    """A file may be open since before it changed."""
    path = write_raster("a.tif", np.full((1, 8, 8), 1, "uint8"))
    other = write_raster("b.tif", np.full((1, 8, 8), 2, "uint8"))
    open_dataset(path)
    other.replace(path)
    with closing(ScanCache(tmp_path / "cache" / "scans.sqlite")) as cache:
        header = RasterHeader.of(open_dataset(path), path.name)
        cache.put_header(path, header, [str(path)])  # as another process did
    with use_cache():
        assert read_header(path) == header
    assert (open_dataset(path).read() == 2).all()


def test_crs_that_text_cannot_hold_is_not_stored(
    write_raster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = read_header(write_raster("a.tif", np.ones((1, 8, 8), "uint8")))
    assert header.to_json() is not None
    monkeypatch.setattr(header_module, "_crs", lambda wkt: CRS.from_epsg(4326))
    assert header.to_json() is None
