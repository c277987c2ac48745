"""Folders of Sentinel-2 products as scenes."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geotune.data.checks.scan_cache import ScanCache
from geotune.data.labels.image_labels import ImageLabels
from geotune.data.labels.targets import ImageClass
from geotune.data.raster.scaling import stated_scaling
from geotune.data.raster.windows import Window
from geotune.data.scenes.open_scenes import open_rasters
from geotune.data.scenes.scene import Scene
from helpers.errors import raises

RESOLUTIONS = {
    10: ["B02", "B03", "B04", "B08", "AOT", "TCI"],
    20: ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11", "B12", "SCL"],
    60: ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B09", "B11", "B12"],
}
NAME = "S2A_MSIL2A_20181013T102019_N0209_R065_T33UUP_20181013T133059"
SIDE_M = 1200
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


def write_band(path: Path, metres: int) -> Any:
    side = SIDE_M // metres
    values = np.random.default_rng(len(str(path.name)) + metres).integers(1, 9000, (side, side))
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="JP2OpenJPEG",
        height=side,
        width=side,
        count=1,
        dtype="uint16",
        crs="EPSG:32633",
        transform=from_origin(300_000, 5_800_020, metres, metres),
        quality=100,
        reversible=True,
    ) as file:
        file.write(values.astype("uint16"), 1)
    return values


@pytest.fixture
def product(tmp_path: Path) -> tuple[Path, dict[tuple[str, int], Any]]:
    folder = tmp_path / f"{NAME}.SAFE"
    images = folder / "GRANULE" / "L2A_T33UUP_A017290_20181013T102021" / "IMG_DATA"
    pixels = {}
    for metres, bands in RESOLUTIONS.items():
        for band in bands:
            path = images / f"R{metres}m" / f"T33UUP_20181013T102019_{band}_{metres}m.jp2"
            pixels[band, metres] = write_band(path, metres)
    (folder / "MTD_MSIL2A.xml").write_text("<a/>")
    return folder, pixels


@pytest.mark.parametrize("pattern", ["{folder}", "{parent}/*.SAFE", "{parent}/{name}/"])
def test_a_product_is_one_scene_with_the_finest_file_of_each_band(
    product: tuple[Path, Any], pattern: str
) -> None:
    folder, pixels = product
    text = pattern.format(folder=folder, parent=folder.parent, name=folder.name)
    [(name, source)] = open_rasters(text).items()
    assert name == NAME and source.bands == BANDS and source.shape == (120, 120)
    assert str(source.acquired) == "2018-10-13"
    image = source.read(Window(0, 0, 120, 120))
    for band, metres in (("B08", 10), ("B11", 20), ("B01", 20), ("B09", 60)):
        repeated = np.kron(pixels[band, metres], np.ones((metres // 10, metres // 10)))
        assert (image[BANDS.index(band)] == repeated).all()


def test_wanted_bands_of_a_product(product: tuple[Path, Any]) -> None:
    folder, pixels = product
    pattern = f"{folder.parent}/*_{{date}}_*.SAFE"
    [(_, source)] = open_rasters(pattern, wanted_bands=["B04", "B8A"]).items()
    image = source.read(Window(0, 0, 120, 120))
    assert (image[0] == pixels["B04", 10]).all() and source.bands == ("B04", "B8A")
    [(_, coarse)] = open_rasters(str(folder), wanted_bands=["B12", "B11"]).items()
    assert coarse.shape == (60, 60) and coarse.gsd_m == 20
    with raises("band-missing", key="backbone.bands", mentions=["B10", "B8A"]):
        open_rasters(str(folder), wanted_bands=["B10"])


def test_the_offset_of_a_product_is_known(product: tuple[Path, Any]) -> None:
    """Since processing baseline 04.00 values are larger by 1000."""
    folder, _ = product
    [source] = open_rasters(str(folder), wanted_bands=["B02", "B11"]).values()
    assert {stated_scaling(file) for file in source.band_files} == {(1.0, 0.0)}
    newer = folder.with_name("newer.SAFE")
    folder.rename(newer)
    (newer / "MTD_MSIL2A.xml").write_text(
        '<BOA_ADD_OFFSET_VALUES_LIST><BOA_ADD_OFFSET band_id="0">-1000</BOA_ADD_OFFSET>'
    )
    [source] = open_rasters(str(newer), wanted_bands=["B02", "B11"]).values()
    assert {stated_scaling(file) for file in source.band_files} == {(1.0, -1000.0)}


def test_metadata_of_a_product_belong_to_the_key_of_its_scan(
    product: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, _ = product

    def key_and_offset() -> tuple[str | None, float]:
        [(name, source)] = open_rasters(str(folder), wanted_bands=["B02"]).items()
        labels = ImageLabels(folder, ("a", "b"), ImageClass(0))
        with closing(ScanCache(None)) as cache:
            key = cache.key(Scene(name, source, labels, group=name))
        return key, stated_scaling(source.band_files[0])[1]

    first = key_and_offset()
    assert first[0] is not None and first == key_and_offset()
    text = '<a><BOA_ADD_OFFSET band_id="0">-1000</BOA_ADD_OFFSET>'
    (folder / "MTD_MSIL2A.xml").write_text(text)
    second = key_and_offset()
    assert second[0] not in (None, first[0]) and second[1] == -1000.0
    (folder / "MTD_MSIL2A.xml").unlink()
    third = key_and_offset()
    assert third[0] not in (None, first[0], second[0]) and third[1] == 0.0


def test_incomplete_products_raise(tmp_path: Path) -> None:
    folder = tmp_path / "a.SAFE"
    folder.mkdir()
    with raises("scenes-missing", key="data.scenes", file=folder, mentions=["{band}"]):
        open_rasters(str(folder))
    (folder / "GRANULE" / "x" / "IMG_DATA").mkdir(parents=True)
    with raises("scenes-missing", key="data.scenes", mentions=["no band"]):
        open_rasters(f"{tmp_path}/*.SAFE")
