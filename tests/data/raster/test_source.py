import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import from_origin

from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.windows import Window
from helpers.errors import raises

NAN = np.nan


def _cube(bands: int = 3, height: int = 6, width: int = 8) -> Any:
    return np.arange(1, bands * height * width + 1, dtype="uint16").reshape(bands, height, width)


def _all(source: Any) -> Window:
    return Window(0, 0, *source.shape)


def test_bands_are_selected_by_name_in_order(write_raster: Any) -> None:
    path = write_raster("a.tif", _cube(), bands=["red", "green", "nir"])
    source = open_raster(path, wanted_bands=["nir", "red"])
    assert source.bands == ("nir", "red")
    assert (source.read(_all(source)) == _cube()[[2, 0]]).all()
    assert (source.read(_all(source), ["red"]) == _cube()[[0]]).all()


def test_given_names_replace_missing_ones(write_raster: Any) -> None:
    path = write_raster("a.tif", _cube())
    source = open_raster(path, bands=["r", "g", "n"], wanted_bands=["n"])
    assert (source.read(_all(source)) == _cube()[[2]]).all()
    assert open_raster(path).bands == ("band1", "band2", "band3")


def test_missing_and_misnamed_bands_raise(write_raster: Any) -> None:
    path = write_raster("a.tif", _cube(), bands=["red", "green", "nir"])
    with raises("band-missing", file=path, mentions=["swir", "red, green, nir"]):
        open_raster(path, wanted_bands=["red", "swir"])
    with raises("band-names", key="data.bands", file=path, mentions=["3 bands", "names 2"]):
        open_raster(path, bands=["red", "green"])
    with raises("band-names", key="data.bands", file=path, mentions=["another order"]):
        open_raster(path, bands=["nir", "green", "red"])
    unnamed = write_raster("b.tif", _cube())
    with raises("band-missing", key="data.bands", file=unnamed, mentions=["3 bands"]):
        open_raster(unnamed, wanted_bands=["red"])


def test_pixels_outside_the_image_are_nan(write_raster: Any) -> None:
    source = open_raster(write_raster("a.tif", _cube()))
    image = source.read(Window(-2, 5, 5, 6))
    assert image.dtype == np.float32
    assert np.isnan(image[:, :2]).all() and np.isnan(image[:, :, 3:]).all()
    assert (image[:, 2:, :3] == _cube()[:, :3, 5:]).all()
    assert np.isnan(source.read(Window(100, 100, 2, 2))).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "float32", "float64"])
def test_values_of_every_dtype(write_raster: Any, dtype: str) -> None:
    """Both for types that float32 represents exactly, and for others."""
    info: Any = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
    values = np.array([[[info.min, 1, 7], [100, info.max, 0]]] * 4, dtype=dtype)
    values[1:] = np.roll(values[1:], 1, axis=-1)
    path = write_raster("a.tif", values, bands=list("abcd"), nodata=7)
    for bands in ("abcd", "db", "ca", "adb"):
        source = open_raster(path, wanted_bands=list(bands))
        image = source.read(Window(-1, 1, 4, 3))
        with np.errstate(over="ignore"):
            expected = values[["abcd".index(band) for band in bands], :, 1:].astype(np.float32)
        expected[(expected == 7) | ~np.isfinite(expected)] = NAN
        assert np.array_equal(image[:, 1:3, :2], expected, equal_nan=True)
        assert np.isnan(image[:, [0, 3]]).all() and np.isnan(image[:, :, 2]).all()


def test_nodata_that_the_dtype_cannot_hold_masks_nothing(write_raster: Any) -> None:
    path = write_raster("a.tif", np.full((1, 2, 2), 7, "uint16"))
    for nodata in (-9999.0, 7.0000001, 1e9, NAN):
        source = open_raster(path, nodata=nodata)
        assert (source.read(_all(source)) == 7).all()


def test_nodata_masks_its_band_only(write_raster: Any) -> None:
    cube = _cube(2)
    cube[0, 1, 1] = 0
    cube[:, 2, 2] = 0
    source = open_raster(write_raster("a.tif", cube, nodata=0))
    image = source.read(_all(source))
    assert np.isnan(image[0, 1, 1]) and image[1, 1, 1] == cube[1, 1, 1]
    assert np.isnan(image[:, 2, 2]).all()
    assert np.isnan(image).sum() == 3


def test_nan_nodata_masks_all_bands(write_raster: Any) -> None:
    cube = _cube(2).astype("float32")
    cube[0, 1, 1] = NAN
    cube[1, 3, 3] = np.inf
    source = open_raster(write_raster("a.tif", cube, nodata=NAN))
    image, invalid, _ = source.read_block(_all(source))
    assert np.isnan(image[:, 1, 1]).all()
    assert np.argwhere(invalid).tolist() == [[1, 3, 3]]


def test_given_nodata_replaces_a_missing_one_only(write_raster: Any) -> None:
    cube = _cube(1)
    cube[0, 0, 0] = 0
    unstated = open_raster(write_raster("a.tif", cube), nodata=0)
    assert np.isnan(unstated.read(_all(unstated))).sum() == 1
    stated = open_raster(write_raster("b.tif", cube, nodata=5), nodata=0)
    assert np.argwhere(np.isnan(stated.read(_all(stated)))).tolist() == [[0, 0, 4]]
    impossible = open_raster(write_raster("c.tif", cube), nodata=-9999.0)
    assert not np.isnan(impossible.read(_all(impossible))).any()


def test_internal_mask(tmp_path: Path, write_raster: Any) -> None:
    import rasterio

    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_raster("a.tif", _cube())
        with rasterio.open(path, "r+") as file:
            hidden = np.full((6, 8), 255, dtype="uint8")
            hidden[4, 4] = 0
            file.write_mask(hidden)
    source = open_raster(path)
    assert np.argwhere(np.isnan(source.read(_all(source))).all(axis=0)).tolist() == [[4, 4]]


def test_fourth_byte_band_is_not_a_mask(write_raster: Any) -> None:
    values = np.zeros((4, 3, 3), dtype="uint8")  # GDAL calls the fourth of these alpha
    source = open_raster(write_raster("a.tif", values))
    assert not np.isnan(source.read(_all(source))).any()


def test_one_file_per_band(write_raster: Any) -> None:
    cube = _cube(2)
    files = {name: write_raster(f"{name}.tif", cube[i]) for i, name in enumerate(["B02", "B08"])}
    source = open_raster(files, wanted_bands=["B08", "B02"])
    assert (source.read(_all(source)) == cube[::-1]).all()
    with raises("band-missing", key="backbone.bands", mentions=["B11", "B02, B08"]):
        open_raster(files, wanted_bands=["B11"])


def test_files_of_one_scene_on_different_grids_raise(write_raster: Any) -> None:
    one = write_raster("B02.tif", _cube(1))
    small = write_raster("B08.tif", _cube(1, height=5))
    with raises("grid-mismatch", file=small, mentions=[one, "(6, 8) and (5, 8)"]):
        open_raster({"B02": one, "B08": small})
    other = write_raster("B11.tif", _cube(1), crs="EPSG:32634")
    with raises("grid-mismatch", file=other, mentions=[one, "CRS"]):
        open_raster({"B02": one, "B11": other})


def test_missing_file_raises(tmp_path: Path) -> None:
    with raises("file-missing", file=tmp_path / "gone.tif"):
        open_raster(tmp_path / "gone.tif")


def test_file_that_is_not_a_raster_raises(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no raster")
    with raises("file-unreadable", file=tmp_path / "text.tif"):
        open_raster(tmp_path / "text.tif")


def test_source_is_readable_in_another_process(write_raster: Any) -> None:
    source = open_raster(write_raster("a.tif", _cube()))
    here = source.read(_all(source))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        there = pool.apply(source.read, (_all(source),))
    assert (there == here).all()


def test_overwritten_file_is_read_again(write_raster: Any) -> None:
    path = write_raster("a.tif", _cube())
    open_raster(path).read(Window(0, 0, 2, 2))
    write_raster("a.tif", _cube() + 1)
    assert (open_raster(path).read(Window(0, 0, 2, 2)) == _cube()[:, :2, :2] + 1).all()


def test_coarser_bands_are_read_on_the_finest_grid(write_raster: Any) -> None:
    fine = _cube(1, 12, 24)
    coarse = _cube(1, 4, 8)
    files = {
        "B09": write_raster("B09.tif", coarse, transform=from_origin(500_000, 5_000_000, 30, 30)),
        "B02": write_raster("B02.tif", fine),
    }
    source = open_raster(files)
    assert source.shape == (12, 24) and source.gsd_m == 10
    rows, cols = np.mgrid[:12, :24]
    every = source.read(_all(source))
    assert (every[1] == fine[0]).all()
    assert (every[0] == coarse[0][rows // 3, cols // 3]).all()
    for window in (Window(1, 2, 3, 4), Window(5, 7, 7, 17), Window(-2, -2, 8, 8)):
        part = source.read(window)
        inner = window.clip(source.shape)
        assert inner is not None
        rows_cols = inner.slices_in(window)
        expected = every[
            :, inner.row : inner.row + inner.height, inner.col : inner.col + inner.width
        ]
        assert (part[:, *rows_cols] == expected).all()


@pytest.mark.parametrize(
    ("shape", "metres", "problem"),
    [
        ((4, 9), 30, "pixels (H, W) differ"),
        ((5, 10), 24, "pixels (H, W) differ"),
        ((4, 8), 20, "transform differ"),
    ],
)
def test_bands_of_other_extent_raise(
    write_raster: Any, shape: tuple[int, int], metres: float, problem: str
) -> None:
    other = from_origin(500_000, 5_000_000, metres, metres)
    files = {
        "B02": write_raster("B02.tif", _cube(1, 12, 24)),
        "B09": write_raster("B09.tif", _cube(1, *shape), transform=other),
    }
    with raises("grid-mismatch", file=files["B09"], mentions=[problem]):
        open_raster(files)


BIG = (8000, 8000)
SMALL_FILES: dict[str, dict[str, Any]] = {
    "zstd.tif": {"compress": "zstd", "tiled": True, "blockxsize": 4096, "blockysize": 4096},
    "strip.tif": {"compress": "zstd", "blockysize": 8000},
    "sparse.tif": {"sparse_ok": True, "tiled": True, "blockxsize": 512, "blockysize": 512},
    "one.tif": {"sparse_ok": True, "blockysize": 8000},
    "spill.img": {"driver": "HFA", "use_spill": "YES", "dtype": "float32"},
    "a.mrf": {"driver": "MRF"},
}


@pytest.mark.parametrize("name", SMALL_FILES)
def test_small_files_of_many_pixels_are_whole(tmp_path: Path, name: str) -> None:
    """All zero and compressed, sparse, or with the pixels in another file."""
    import rasterio

    path = tmp_path / name
    height, width = BIG
    options = {"driver": "GTiff", "dtype": "uint8", **SMALL_FILES[name]}
    with rasterio.open(path, "w", height=height, width=width, count=1, **options) as file:
        if "sparse_ok" not in options:
            file.write(np.zeros((1, *BIG), dtype=options["dtype"]))
    assert path.stat().st_size * 10_000 < height * width * (4 if name == "spill.img" else 1)
    image = open_raster(path).read(Window(7990, 7990, 10, 10))
    assert (image == 0).all()
