"""Masks of colours: RGB, RGBA and palettes, read by index or by colour."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from geotune.data.checks.label_checks import check_labels
from geotune.data.checks.scanned import scan_splits
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.data.scenes.open_scenes import open_scenes
from geotune.types import IGNORE
from helpers.errors import raises

CLASSES = ["land", "sea"]
BLACK_BLUE = {"land": 0x000000, "sea": 0x0000FF}
RED_BLUE = {"land": 0xFF0000, "sea": 0x0000FF}
SHAPE = (6, 8)
INDEX = (np.add.outer(np.arange(6), np.arange(8)) % 3 == 0).astype("uint8")


@pytest.fixture
def scene(write_raster: Any) -> RasterSource:
    return open_raster(write_raster("scene.tif", np.ones((1, *SHAPE), dtype="uint8"), crs=None))


def _write_palette(path: Path, index: Any, colors: list[int], **options: Any) -> Path:
    image = Image.fromarray(index).convert("P")
    image.putdata(index.ravel().tolist())
    image.putpalette([c >> shift & 255 for c in colors for shift in (16, 8, 0)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def _read(path: Path, scene: RasterSource, values: Any, **options: Any) -> Any:
    labels = open_labels(path, scene, classes=CLASSES, class_values=values, **options)
    return labels.read(Window(0, 0, *SHAPE)).mask  # type: ignore[attr-defined]  # a mask


@pytest.mark.parametrize("values", [BLACK_BLUE, RED_BLUE])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "palette", "reversed palette"])
def test_colors_mean_the_same_in_every_kind_of_file(
    scene: RasterSource, tmp_path: Path, mode: str, values: Any
) -> None:
    colors = list(values.values())
    if mode in ("RGB", "RGBA"):
        image = np.full((*SHAPE, len(mode)), 255, dtype="uint8")
        image[..., :3] = np.array([[c >> 16, c >> 8 & 255, c & 255] for c in colors])[INDEX]
        Image.fromarray(image).save(path := tmp_path / "m.png")
    elif mode == "palette":
        path = _write_palette(tmp_path / "m.png", INDEX, colors)
    else:
        path = _write_palette(tmp_path / "m.png", 1 - INDEX, colors[::-1])
    assert (_read(path, scene, values) == INDEX).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_black_and_white_mean_the_same_in_every_kind_of_file(
    scene: RasterSource, tmp_path: Path, mode: str
) -> None:
    image = Image.fromarray(255 * INDEX)
    (image if mode == "L" else image.convert("RGB").convert(mode)).save(path := tmp_path / "m.png")
    assert (_read(path, scene, {"land": 0x000000, "sea": 0xFFFFFF}) == INDEX).all()
    with raises("class-unknown", file=path, mentions="0xFFFFFF"):
        _read(path, scene, RED_BLUE | {"land": [0x000000, 0xFF0000]})


def test_numbers_of_two_bytes_are_no_colors(scene: RasterSource, tmp_path: Path) -> None:
    Image.fromarray(111 * INDEX).save(path := tmp_path / "m.png")
    assert (_read(path, scene, {"land": [0, 523], "sea": 111}) == INDEX).all()


def test_other_colors_of_a_palette_raise_with_their_pixels(
    scene: RasterSource, tmp_path: Path
) -> None:
    index = INDEX.copy()
    index[0, :3] = 2
    path = _write_palette(tmp_path / "m.png", index, [0xFF0000, 0x0000FF, 0x102030])
    with raises("class-unknown", file=path, mentions=["0x102030 (3 pixels)", "sea (0x0000FF)"]):
        _read(path, scene, RED_BLUE)
    ignored = _read(path, scene, RED_BLUE, ignore_values=[0x102030])
    assert (ignored == np.where(index == 2, IGNORE, index)).all()


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "palette"])
def test_colors_on_another_grid_are_those_of_the_nearest_pixels(
    write_raster: Any, kind: str
) -> None:
    scene = open_raster(write_raster("scene.tif", np.ones((1, *SHAPE), dtype="uint8")))
    coarse = INDEX[::2, ::2]
    if kind == "palette":
        bands = coarse[None]
    else:
        bands = np.full((len(kind), *coarse.shape), 255, dtype="uint8")
        bands[:2], bands[2] = 0, 255 * coarse
    # pixels twice the scene's, from its column 2 on
    profile = {"photometric": kind} if kind != "RGBA" else {"photometric": "RGB", "alpha": "yes"}
    path = write_raster(
        "m.tif", bands, transform=from_origin(500_020, 5_000_000, 20, 20), **profile
    )
    values = BLACK_BLUE
    if kind == "palette":
        values = RED_BLUE
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {0: (255, 0, 0), 1: (0, 0, 255)})
    expected = np.full(SHAPE, IGNORE)
    expected[:, 2:] = coarse.repeat(2, 0).repeat(2, 1)[:, :6]
    assert (_read(path, scene, values) == expected).all()


@pytest.mark.parametrize("palette", [False, True])
def test_blue_is_not_ignored_by_default(scene: RasterSource, tmp_path: Path, palette: bool) -> None:
    """Its number is 255."""
    colors = [0x00FF00, 0x0000FF]
    path = _write_palette(tmp_path / "m.png", INDEX, colors)
    if not palette:
        Image.open(path).convert("RGB").save(path)
    values = {"land": 0x00FF00, "sea": 0xFF0000}
    with raises("class-unknown", file=path, mentions=["0x0000FF"]):
        _read(path, scene, values)
    ignored = _read(path, scene, values, ignore_values=[0x0000FF])
    assert (ignored == np.where(INDEX == 1, IGNORE, 0)).all()


def test_transparent_pixels_have_no_label_unless_their_color_is_a_class(
    scene: RasterSource, tmp_path: Path
) -> None:
    rgba = np.zeros((*SHAPE, 4), dtype="uint8")
    rgba[INDEX == 1] = 0, 0, 255, 255
    Image.fromarray(rgba).save(path := tmp_path / "rgba.png")
    index = 2 - INDEX  # 1: sea, 2: transparent
    colors = [0xFF0000, 0x0000FF, 0x000000]
    palette = _write_palette(tmp_path / "m.png", index, colors, transparency=2)
    for file in (path, palette):
        assert (_read(file, scene, RED_BLUE) == np.where(INDEX == 1, 1, IGNORE)).all()
        values = {**BLACK_BLUE, "sea": [0x0000FF, 0xFF0000]}
        assert (_read(file, scene, values) == INDEX).all()


@pytest.mark.parametrize("nodata", [0, (7, 8, 9)])
@pytest.mark.parametrize("grid", ["same", "coarse"])
def test_the_nodata_color_of_a_mask_has_no_label_unless_it_is_a_class(
    write_raster: Any, tmp_path: Path, grid: str, nodata: Any
) -> None:
    scene = open_raster(write_raster("scene.tif", np.ones((1, *SHAPE), dtype="uint8")))
    step = 2 if grid == "coarse" else 1
    coarse = INDEX[::step, ::step]
    expected = coarse.repeat(step, 0).repeat(step, 1)
    hidden = (0, 0, 0) if nodata == 0 else nodata
    colors = np.array([hidden, (0, 0, 255)], dtype="uint8")[coarse].transpose(2, 0, 1)
    transform = from_origin(500_000, 5_000_000, 10 * step, 10 * step)
    if nodata == 0:
        path = write_raster("m.tif", colors, transform=transform, nodata=0)
    else:  # a colour that a PNG declares as transparent
        path = tmp_path / "m.png"
        Image.fromarray(colors.transpose(1, 2, 0)).save(path, transparency=nodata)
        path.with_suffix(".pgw").write_text(
            f"{10 * step}\n0\n0\n{-10 * step}\n{500_000 + 5 * step}\n{5_000_000 - 5 * step}"
        )
    assert (_read(path, scene, RED_BLUE) == np.where(expected == 1, 1, IGNORE)).all()
    red, green, blue = hidden
    values = {"land": red << 16 | green << 8 | blue, "sea": 0x0000FF}
    labels = open_labels(path, scene, classes=CLASSES, class_values=values)
    assert (labels.read(Window(0, 0, *SHAPE)).mask == expected).all()  # type: ignore[attr-defined]
    assert any("maps to land and counts as land" in note for note in labels.notes)


def test_unknown_values_are_written_exactly(
    write_raster: Any, scene: RasterSource, tmp_path: Path
) -> None:
    values = np.where(INDEX == 1, 1.000001, 0).astype("float32")
    path = write_raster("m.tif", values, crs=None)
    with raises("class-unknown", file=path, mentions="values 1.000001 (16 pixels)"):
        _read(path, scene, None)
    path = write_raster("n.tif", np.where(INDEX == 1, 8355711, 0).astype("uint32"), crs=None)
    with raises("class-unknown", file=path, mentions="values 8355711 (16 pixels)"):
        _read(path, scene, None)
    path = _write_palette(tmp_path / "m.png", INDEX, [0x102030, 0x0000FF])
    with raises("class-unknown", file=path, mentions="values 1, of the colour 0x0000FF (16"):
        _read(path, scene, {"land": 0, "sea": 255})
    image = np.array([[0xFF, 0, 0], [0, 0, 0xFF]], dtype="uint8")[INDEX]
    Image.fromarray(image).save(path := tmp_path / "m.jpg")
    with raises("class-unknown", file=path, mentions="JPEG"):
        _read(path, scene, RED_BLUE)


def test_indices_of_a_palette_remain_indices(scene: RasterSource, tmp_path: Path) -> None:
    path = _write_palette(tmp_path / "m.png", INDEX, [0x112233, 0x445566])
    assert (_read(path, scene, None) == INDEX).all()
    assert (_read(path, scene, {"land": 1, "sea": 0}) == 1 - INDEX).all()
    # a palette may lack the last classes
    assert (_read(path, scene, {"land": 0, "sea": [1, 7]}) == INDEX).all()


def _warnings(folder: Path, palettes: list[list[int]], indices: list[Any], values: Any) -> Any:
    for i, (colors, index) in enumerate(zip(palettes, indices, strict=True)):
        (folder / "images").mkdir(exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 255, SHAPE).astype("uint8")
        Image.fromarray(noise).save(folder / "images" / f"{i}.png")
        _write_palette(folder / "masks" / f"{i}.png", index, colors)
    scenes = open_scenes(
        partial(open_labels, classes=CLASSES, class_values=values),
        scenes=f"{folder}/images/*.png",
        labels=f"{folder}/masks/{{stem}}.png",
    )
    scanned = scan_splits({"train": scenes[:1], "val": scenes[1:], "test": []}, window=8)
    issues = [issue for issue in check_labels(scanned) if "palette" in issue.text]
    assert all(issue.severity == "warning" for issue in issues)
    return [issue.text for issue in issues]


def test_palettes_that_contradict_each_other_give_a_warning(tmp_path: Path) -> None:
    colors = [0x00FF00, 0x0000FF]
    [text] = _warnings(tmp_path, [colors, colors[::-1]], [INDEX, 1 - INDEX], None)
    assert "data.class_values" in text
    for part in ("land", "0x00FF00", "0x0000FF", "masks/0.png", "masks/1.png"):
        assert part in text


def test_one_color_for_two_classes_gives_a_warning(tmp_path: Path) -> None:
    palettes = [[0x00FF00], [0x111111, 0x00FF00]]
    [text] = _warnings(tmp_path, palettes, [0 * INDEX, 0 * INDEX + 1], None)
    assert "0x00FF00 is land" in text and "sea" in text


def test_palettes_that_agree_where_they_are_used_give_no_warning(tmp_path: Path) -> None:
    palettes = [[0x00FF00, 0x0000FF], [0x00FF00, 0x777777]]
    assert not _warnings(tmp_path, palettes, [INDEX, 0 * INDEX], None)
    assert not _warnings(tmp_path, [[0xFF0000, 0x0000FF]] * 2, [INDEX] * 2, RED_BLUE)


def test_real_palettes_are_read_as_the_colors_that_they_show(shared_data: Path) -> None:
    """18 masks whose palettes have 15 orders, and as many masks of RGB."""
    names = ["land", "water", "building", "vegetation", "road"]
    colors = [0x8429F6, 0xE2A929, 0x3C1098, 0xFEDD3A, 0x6EC1E4]
    read = partial(
        open_labels,
        classes=names,
        class_values=dict(zip(names, colors, strict=True)),
        ignore_values=[0x9B9B9B, 0xFFFFFF, 0x000000],
    )
    scenes = open_scenes(read, scenes=str(shared_data / "aerial" / "scenes.csv"))
    kinds: dict[str, list[Any]] = {"P": [], "RGB": []}
    for scene in scenes:
        with Image.open(scene.labels.path) as image:
            kinds[image.mode].append((scene, np.asarray(image.convert("RGB")).astype(int)))
    assert [len(members) for members in kinds.values()] == [18, 54]
    for scene, rgb in [*kinds["P"], *kinds["RGB"][::3]]:
        value = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
        expected = np.full(value.shape, IGNORE)
        for i, color in enumerate(colors):
            expected[value == color] = i
        window = Window(0, 0, *scene.shape)
        assert (scene.labels.read(window).mask == expected).all()
