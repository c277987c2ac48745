"""`geotune init`: the recipe for a folder of images and labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from rasterio.transform import from_origin

from geotune.api.checking import check, find_data_issues
from geotune.api.fitting import fit
from geotune.api.init.create_recipe import init
from geotune.api.init.draft import Draft
from geotune.api.init.layout import PAGES
from geotune.api.init.settings import set_length
from geotune.config import Recipe, load_recipe
from geotune.data.raster.open_raster import open_raster
from geotune.utils.paths import files_below
from helpers.annotation_files import PER_IMAGE, Thing, upright, write_coco, write_points
from helpers.errors import raises

SIDE = 64
NAMES = [f"{place}_{i}" for place in ("oslo", "rome", "bonn", "bern", "lodz") for i in (1, 2)]
CLASSES = ("ship", "crane")
Command = Callable[..., tuple[int, str, str]]


def write_image(
    path: Path, index: int = 0, *, bands: int = 3, side: int = SIDE, crs: str | None = "EPSG:32633"
) -> Path:
    """An image of noise, 10 km from the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(index).integers(0, 255, (bands, side, side), dtype=np.uint8)
    profile: dict[str, Any] = {"count": bands, "height": side, "width": side, "dtype": "uint8"}
    if crs is not None:
        transform = from_origin(500_000 + 10_000 * index, 5_000_000, 10, 10)
        profile |= {"crs": crs, "transform": transform}
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)
    return path


def write_mask(path: Path, index: int, values: tuple[int, ...] = (0, 255)) -> None:
    """A mask of vertical stripes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = np.array(values, dtype=np.uint8)[np.arange(SIDE) * len(values) // SIDE]
    with rasterio.open(
        path, "w", count=1, height=SIDE, width=SIDE, dtype="uint8", driver="PNG"
    ) as file:
        file.write(np.tile(np.roll(stripes, index), (SIDE, 1)), 1)


def objects(index: int) -> list[Thing]:
    """Two objects, of which the first is turned."""
    turned = np.array([[10.0, 20], [20, 10], [26, 16], [16, 26]]) + index
    return [Thing(turned, name="ship"), upright(40, 40, 52, 50, name="crane")]


def written(folder: Path, **options: Any) -> Recipe:
    """The recipe of `init`, on which `check` finds no error."""
    out = folder.parent / "recipe.yaml"
    result = init(folder, out, **options)
    recipe = load_recipe(out)[0]
    issues, *_ = find_data_issues(recipe)
    assert not [issue.text for issue in issues if issue.severity == "error"]
    assert not [issue for issue in result.issues if issue.severity == "error"]
    return recipe


def fit_one_step(recipe: Recipe, folder: Path) -> None:
    data = recipe.data.model_copy(update={"samples": recipe.train.batch_size})
    short = recipe.model_copy(update={"data": data})
    result = fit(short.with_train(epochs=1, accelerator="cpu"), run=folder / "run")
    assert (result.run / "report.html").is_file()


@pytest.fixture(autouse=True)
def free_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Sets the free memory; without it, `init` estimates nothing, which takes seconds."""

    def set_bytes(value: int | None) -> None:
        from geotune.training import memory_adaptation

        monkeypatch.setattr(memory_adaptation, "free_memory", lambda device: value)

    set_bytes(None)
    return set_bytes


# ---------------------------------------------------------------- real data
@pytest.mark.parametrize("name", [pytest.param("ships", marks=pytest.mark.slow), "clouds"])
def test_real_scenes(shared_data: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "recipe.yaml"
    result = init(shared_data / name, out)
    recipe = load_recipe(out)[0]
    assert recipe.task.kind == "segment" and recipe.data.split.kind == "group"
    assert not [issue for issue in result.issues if issue.severity == "error"]
    checked = check(out, page=tmp_path / "page.html")
    assert checked.count("error") == 0
    for counts in checked.class_counts.values():  # every class is in every split
        assert all(counts.values())


@pytest.mark.slow
def test_real_trees(shared_data: Path, tmp_path: Path) -> None:
    """Points in CSVs, an image without trees, lists of the splits beside the data."""
    out = tmp_path / "recipe.yaml"
    init(shared_data / "trees", out, classes=["tree"])
    recipe = load_recipe(out)[0]
    assert recipe.task.kind == "detect" and recipe.task.boxes == "points"
    assert recipe.data.missing_labels == "empty" and recipe.data.split.kind == "list"
    assert recipe.data.bands == ["red", "green", "blue", "nir"]
    assert check(out, page=tmp_path / "page.html").count("error") == 0


# ---------------------------------------------------------------- layouts
@pytest.mark.slow
def test_folders_of_chips_and_masks_of_zeros_and_255(tmp_path: Path) -> None:
    """Names group the chips: both of a place are in one split. Its recipe trains."""
    for i, name in enumerate(NAMES):
        write_image(tmp_path / "roofs" / "images" / f"{name}.png", i, crs=None)
        write_mask(tmp_path / "roofs" / "masks" / f"{name}_mask.png", i)
    recipe = written(tmp_path / "roofs")
    assert recipe.data.class_values == {"background": 0, "object": 255}
    assert recipe.data.window == SIDE
    split = recipe.data.split
    assert split.by == "^(.+)[_-][^_-]+$" and len(split.val) == len(split.test) == 1
    fit_one_step(recipe, tmp_path)


def test_rasters_of_numbers_and_transparency(tmp_path: Path) -> None:
    """A quantity beside images with an alpha band, in folders of any names."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        path = write_image(tmp_path / "site" / "ortho" / f"{name}.tif", i, bands=4)
        with rasterio.open(path, "r+") as file:
            file.write(np.full((SIDE, SIDE), 255, dtype=np.uint8), 4)
        path = write_image(tmp_path / "site" / "canopy" / f"{name}.tif", i, bands=1)
        with rasterio.open(path) as file:
            profile = file.profile | {"dtype": "float32"}
        with rasterio.open(path, "w", **profile) as file:
            file.write(rng.gamma(2, 5, (1, SIDE, SIDE)).astype(np.float32))
    recipe = written(tmp_path / "site")
    assert recipe.task.kind == "regress" and recipe.task.quantity == "canopy"
    assert recipe.data.bands == ["red", "green", "blue", "alpha"]
    assert list(recipe.backbone.bands) == ["red", "green", "blue"]


def test_tiles_with_folders_of_their_own_and_colour_masks(tmp_path: Path) -> None:
    for i, name in enumerate("abc"):
        write_image(tmp_path / "land" / name / "img" / "part1.jpg", i, crs=None)
        image = write_image(tmp_path / "land" / name / "labels" / "part1.png", i, crs=None)
        colors = np.array([[255, 0, 0], [0, 0, 255]], dtype=np.uint8)
        with rasterio.open(image, "w", count=3, height=64, width=64, dtype="uint8") as file:
            file.write(np.moveaxis(colors[np.indices((64, 64)).sum(axis=0) % 2], 2, 0))
    recipe = written(tmp_path / "land", classes=["sea", "roof"])
    assert recipe.data.scenes.endswith("land/{folder1}/img/{name}.jpg")
    assert recipe.data.labels.endswith("land/{folder1}/labels/{name}.png")
    assert recipe.data.class_values == {"sea": 0x0000FF, "roof": 0xFF0000}
    assert "{sea: 0x0000FF, roof: 0xFF0000}" in (tmp_path / "recipe.yaml").read_text()


@pytest.mark.parametrize("shared", [False, True])
def test_polygons_with_the_class_in_an_unusual_field(tmp_path: Path, shared: bool) -> None:
    """A file per scene, or one GeoPackage for all."""
    frames = []
    for i, name in enumerate(NAMES[:6]):
        image = write_image(tmp_path / "sites" / f"{name}.tif", i)
        left, _, _, top = rasterio.open(image).bounds
        shapes = [
            shapely.Point(left + 150 + 150 * k, top - 150 - 150 * k).buffer(60) for k in range(3)
        ]
        values = {"landuse_type": ["wood", "lake", "lake"], "area": [1.0 * i, 2.0, 3.0]}
        frames.append(geopandas.GeoDataFrame(values, geometry=shapes, crs="EPSG:32633"))
        if not shared:
            frames[-1].to_file(image.with_suffix(".geojson"))
    if shared:
        import pandas

        pandas.concat(frames).to_file(tmp_path / "sites" / "all.gpkg")
    recipe = written(tmp_path / "sites")
    assert recipe.data.class_field == "landuse_type"
    assert recipe.task.classes == ["background", "lake", "wood"]
    if shared:
        return
    names = ["background", "water", "trees"]  # other names, in the order of those in the labels
    recipe = written(tmp_path / "sites", classes=names, overwrite=True)
    assert recipe.task.classes == names and recipe.data.unlabelled is None
    assert recipe.data.class_values == {
        "background": "background",
        "water": "lake",
        "trees": "wood",
    }
    recipe = written(tmp_path / "sites", task="detect", classes=["Lake"], overwrite=True)
    assert recipe.task.classes == ["Lake"] and recipe.data.other_classes == "leave_out"
    with raises("class-unknown", mentions=["--classes", "sea", "lake, wood"]):
        init(tmp_path / "sites", tmp_path / "x.yaml", classes=["sea"])


def test_numbered_polygons_leave_the_rest_unlabelled(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES[:5]):
        image = write_image(tmp_path / "land" / f"{name}.tif", i)
        left, _, _, top = rasterio.open(image).bounds
        shapes = shapely.buffer(shapely.points(left + 150 * np.arange(1, 4), top - 300), 60)
        frame = geopandas.GeoDataFrame({"class": [1, 2, 7]}, geometry=shapes, crs="EPSG:32633")
        frame.to_file(image.with_suffix(".shp"))
    recipe = written(tmp_path / "land")
    assert recipe.data.class_values == {"class_1": 1, "class_2": 2, "class_7": 7}
    assert recipe.data.unlabelled == "ignore"


@pytest.mark.parametrize(
    ("format", "trains"),
    [("dota", False), ("yolo", False), pytest.param("dota", True, marks=pytest.mark.slow)],
)
def test_object_labels_per_image(tmp_path: Path, format: str, trains: bool) -> None:
    """DOTA, and YOLO with folders for training and validation and a list of names."""
    suffix, write = PER_IMAGE[format]
    for i, name in enumerate(NAMES):
        part = ("train" if i < 7 else "valid") if format == "yolo" else ""
        image = write_image(tmp_path / "port" / "images" / part / f"{name}.png", i, crs=None)
        label = tmp_path / "port" / "labels" / part / f"{name}.{suffix}"
        label.parent.mkdir(parents=True, exist_ok=True)
        write(label, open_raster(image), objects(i), CLASSES)
    (tmp_path / "port" / "data.yaml").write_text("names: [ship, crane, buoy]\n")
    recipe = written(tmp_path / "port")
    assert recipe.task.kind == "detect" and recipe.task.boxes == "oriented"
    if format == "yolo":
        assert recipe.task.classes == ["ship", "crane", "buoy"]
        assert recipe.data.split.by == "part" and recipe.data.split.val == ["valid"]
        cranes = written(tmp_path / "port", classes=["crane"], overwrite=True)
        assert cranes.data.class_values == {"crane": 1}
        assert cranes.data.other_classes == "leave_out"
    else:
        assert recipe.task.classes == ["crane", "ship"]
    if trains:
        fit_one_step(recipe, tmp_path)


def test_coco_files_in_folders_of_the_splits(tmp_path: Path) -> None:
    """They become a table with a column of the splits."""
    for part in ("train", "valid"):
        images = {}
        for i, name in enumerate(NAMES[: 5 if part == "train" else 3]):
            index = i + 10 * (part == "valid")
            image = write_image(tmp_path / "port" / part / f"{part}_{name}.jpg", index, crs=None)
            images[image.name] = (open_raster(image), objects(i))
        write_coco(tmp_path / "port" / part / "_annotations.coco.json", images, CLASSES)
    recipe = written(tmp_path / "port")
    assert recipe.data.scenes.endswith("recipe_scenes.csv") and recipe.data.split.kind == "column"
    assert recipe.task.classes == ["crane", "ship"]


def test_coco(tmp_path: Path) -> None:
    images = {}
    for i, name in enumerate(NAMES):
        image = write_image(tmp_path / "port" / "images" / f"{name}.png", i, crs=None)
        images[image.name] = (open_raster(image), objects(i))
    write_coco(tmp_path / "port" / "instances.json", images, CLASSES)
    recipe = written(tmp_path / "port", classes=["ship"])
    assert recipe.task.boxes == "horizontal" and recipe.data.other_classes == "leave_out"


def test_points(tmp_path: Path) -> None:
    """To find, or with `task` to count; an image without a file has no objects."""
    for i, name in enumerate(NAMES):
        image = write_image(tmp_path / "park" / f"{name}.tif", i)
        if i:
            write_points(image.with_suffix(".csv"), open_raster(image), objects(i), CLASSES)
    recipe = written(tmp_path / "park")
    assert recipe.task.boxes == "points" and recipe.data.point_size == "31 px"
    assert recipe.data.missing_labels == "empty"
    assert written(tmp_path / "park", task="density", overwrite=True).task.kind == "density"
    for path in (tmp_path / "park").glob("*.csv"):
        left, _, _, top = rasterio.open(path.with_suffix(".tif")).bounds
        path.write_text(f"x,y\n{left + 100},{top - 200}\n{left + 310},{top - 450}\n")
    recipe = written(tmp_path / "park", overwrite=True)
    assert recipe.task.kind == "density" and recipe.data.points == "coordinates"


@pytest.mark.parametrize("parts", [(), ("train", "val", "test")])
def test_class_folders(tmp_path: Path, parts: tuple[str, ...]) -> None:
    """A folder per class, also in folders of the splits."""
    for i in range(24):
        part = parts[i % 3] if parts else ""
        write_image(
            tmp_path / "use" / part / ("park", "road")[i // 3 % 2] / f"{i}.jpg", i, crs=None
        )
    recipe = written(tmp_path / "use")
    assert recipe.task.kind == "classify" and recipe.task.classes == ["park", "road"]
    assert recipe.data.split.kind == ("column" if parts else "random")
    if parts:
        fit_one_step(recipe, tmp_path)


def test_one_file_per_band_and_one_scene(tmp_path: Path) -> None:
    """A scene is cut into blocks."""
    for band in ("B02", "B03", "B08"):
        image = write_image(tmp_path / "tile" / f"{band}.tif", bands=1, side=640)
    left, _, _, top = rasterio.open(image).bounds
    rng = np.random.default_rng(0)
    shapes = shapely.buffer(
        shapely.points(left + rng.random(80) * 6400, top - rng.random(80) * 6400), 90
    )
    geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32633").to_file(tmp_path / "tile" / "a.shp")
    recipe = written(tmp_path / "tile", task="segment")
    assert recipe.data.scenes.endswith("tile/{band}.tif")
    assert list(recipe.backbone.bands) == ["B02", "B03", "B08"] and recipe.data.bands is None
    assert recipe.data.split.kind == "blocks" and recipe.data.split.buffer == "64 px"


def test_adjoining_scenes_are_split_by_blocks(tmp_path: Path) -> None:
    for i in range(49):
        path = write_image(tmp_path / "grid" / "images" / f"{i}.tif", i)
        with rasterio.open(path, "r+") as file:
            file.transform = from_origin(
                500_000 + 640 * (i % 7), 5_000_000 - 640 * (i // 7), 10, 10
            )
        write_mask(tmp_path / "grid" / "masks" / f"{i}.png", i, (0, 1, 2))
    recipe = written(tmp_path / "grid")
    assert recipe.data.split.kind == "blocks"
    assert recipe.task.classes == ["class_0", "class_1", "class_2"]


# ---------------------------------------------------------------- the command
def test_command(geotune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments in the recipe, the next commands, and no overwriting without being told."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(NAMES):
        write_image(Path("roofs") / "images" / f"{name}.png", i, crs=None)
        write_mask(Path("roofs") / "masks" / f"{name}.png", i, (0, 1, 2, 255))
    code, out, err = geotune("init", "roofs", "--classes", "soil, roof, road")
    assert code == 0, err
    assert [f"geotune {name} roofs.yaml" in out for name in ("check", "plan", "fit")] == [True] * 3
    text = Path("roofs.yaml").read_text()
    assert "# pixels without a label; if 255 is a class" in text
    values = yaml.safe_load(text)
    assert values["task"]["classes"] == ["soil", "roof", "road"]
    assert values["data"]["ignore_values"] == [255]
    code, _, err = geotune("init", "roofs")
    assert code == 1 and "--overwrite" in err and "output-exists" in err
    code, out, _ = geotune("init", "roofs", "--overwrite", "--json", "--backbone", "timm/test_vit")
    assert code == 0 and json.loads(out)["recipe"] == "roofs.yaml"
    assert yaml.safe_load(Path("roofs.yaml").read_text())["backbone"]["name"] == "timm/test_vit"


def test_settings_fit_the_free_memory(
    tmp_path: Path, free_memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The changes of the planner are part of the recipe."""
    changes = {"train.accumulate_steps": 4, "method": {"kind": "frozen"}}
    fitting = SimpleNamespace(changes=changes, bytes=60_000_000)

    def plan(recipe: Recipe, *, budget: int | None = None, **_: Any) -> Any:
        assert budget in (None, 70_000_000)
        estimate = SimpleNamespace(cpu=SimpleNamespace(total=80_000_000))
        limited = SimpleNamespace(proposals=[fitting], smallest=fitting)
        return SimpleNamespace(prediction=estimate, on_gpu=False, budget=limited)

    monkeypatch.setattr("geotune.api.planning.plan", plan)
    for i, name in enumerate(NAMES):
        write_image(tmp_path / "roofs" / "images" / f"{name}.png", i, crs=None)
        write_mask(tmp_path / "roofs" / "masks" / f"{name}.png", i)
    free_memory(100_000_000)
    recipe = written(tmp_path / "roofs")
    assert recipe.train.accumulate_steps == 4 and recipe.method.kind == "frozen"
    comments = " ".join((tmp_path / "recipe.yaml").read_text().split())
    assert "60.0 MB" in comments and "accumulate_steps, method" in comments


@pytest.mark.parametrize("large", [False, True])
def test_a_first_training_is_short_whatever_the_size_of_the_data(large: bool) -> None:
    draft = Draft()
    scenes = [cast("Any", SimpleNamespace(shape=(10_980, 10_980) if large else (600, 500)))] * 5
    set_length(draft, scenes, 128)
    assert draft.values["train"]["epochs"] == 20
    assert draft.values["data"].get("samples") == (1024 if large else None)
    assert draft.values["train"].get("validation_windows") == (256 if large else None)
    if large:
        assert "about 22,075" in draft.comments["data.samples"]


# ---------------------------------------------------------------- dates, products, links, names
def write_places(folder: Path, names: tuple[str, ...]) -> None:
    """Polygons of two classes for each place, in the middle of its image."""
    for i, name in enumerate(names):
        left = 500_000 + 10_000 * i
        shapes = [shapely.box(left + x, 4_999_700, left + x + 90, 4_999_950) for x in (100, 300)]
        path = folder / f"{name}.geojson"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = geopandas.GeoDataFrame({"class": CLASSES}, geometry=shapes, crs="EPSG:32633")
        frame.to_file(path)


@pytest.mark.parametrize("pattern", ["images/{name}_{day}.tif", "{day}/{name}.tif"])
def test_dates_of_a_place_share_its_labels_and_split(tmp_path: Path, pattern: str) -> None:
    names = ("oslo_1", "rome", "bonn", "bern")
    for i, name in enumerate(names):
        for day in ("2020-01-05", "2020-06-12")[: 1 if name == "bern" else 2]:
            write_image(tmp_path / "sites" / pattern.format(name=name, day=day), i)
    write_places(tmp_path / "sites" / "labels", names)
    recipe = written(tmp_path / "sites")
    table = (tmp_path / "recipe_scenes.csv").read_text().splitlines()
    assert table[0] == "image,label,name,place" and len(table) == 8
    assert recipe.data.split.by == "place"
    assert {*recipe.data.split.val, *recipe.data.split.test} < {*names}
    comments = " ".join((tmp_path / "recipe.yaml").read_text().replace("#", "").split())
    assert "3 places with 2 dates each" in comments and "backbone.timesteps" in comments


def test_images_that_are_labelled_at_each_date_need_no_table(tmp_path: Path) -> None:
    for i, name in enumerate(("oslo", "rome", "bonn")):
        for day in ("20200105", "20200612"):
            write_image(tmp_path / "sites" / f"{name}_{day}.tif", i)
            write_mask(tmp_path / "sites" / f"{name}_{day}_mask.png", i)
    recipe = written(tmp_path / "sites")
    assert recipe.data.scenes == f"{tmp_path}/sites/*.tif"
    assert "3 places with 2 dates each" in (tmp_path / "recipe.yaml").read_text()


def write_product(folder: Path, tile: str, day: str, index: int) -> Path:
    """A Sentinel-2 product with bands of 10, 20 and 60 m, and a preview."""
    product = folder / f"S2A_MSIL2A_{day}T102019_N0209_R065_{tile}_{day}T133059.SAFE"
    granule = product / "GRANULE" / f"L2A_{tile}"
    bands = [("B02", 10), ("B04", 10), ("B8A", 20), ("B01", 60)]
    for band, metres in [*bands, ("B02", 20), ("PVI", 320)]:
        inside = "QI_DATA" if band == "PVI" else f"IMG_DATA/R{metres}m"
        path = granule / inside / f"{tile}_{day}_{band}_{metres}m.jp2"
        path.parent.mkdir(parents=True, exist_ok=True)
        side = 960 // metres
        with rasterio.open(
            path, "w", driver="JP2OpenJPEG", count=1, height=side, width=side, dtype="uint16",
            crs="EPSG:32633", quality=100, reversible=True,
            transform=from_origin(500_000 + 10_000 * index, 5_000_000, metres, metres),
        ) as file:  # fmt: skip
            seed = 1000 * int(day[5]) + 10 * index + metres
            file.write(np.random.default_rng(seed).integers(1, 9000, (1, side, side), "uint16"))
    return product


def test_sentinel_2_products_are_images_of_all_bands(tmp_path: Path) -> None:
    tiles = ("T33UUA", "T33UUB", "T33UUC")
    for i, tile in enumerate(tiles):
        for day in ("20200105", "20200612"):
            product = write_product(tmp_path / "s2", tile, day, i)
    with raises("labels-missing", mentions=["6 images", "SAFE", "no labels"]):
        init(tmp_path / "s2", tmp_path / "x.yaml")
    with raises("labels-missing", file=product, mentions=["one Sentinel-2 product"]):
        init(product, tmp_path / "x.yaml")
    write_places(tmp_path / "s2", tiles)
    recipe = written(tmp_path / "s2")
    assert [*recipe.backbone.bands] == ["B01", "B02", "B04", "B8A"]
    assert recipe.data.split.by == "place"
    comments = (tmp_path / "recipe.yaml").read_text()
    assert "3 places with 2 dates each" in comments and "those of 60 m" in comments


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES):
        write_image(tmp_path / "disk" / f"{name}.tif", i)
        write_mask(tmp_path / "more" / "masks" / f"{name}.png", i)
    folder = tmp_path / "harbours"
    folder.mkdir()
    for name, target in (("images", "disk"), ("labels", "more"), ("again", "disk")):
        (folder / name).symlink_to(tmp_path / target)
    (tmp_path / "more" / "loop").symlink_to(folder)
    recipe = written(folder)
    assert recipe.task.kind == "segment" and "harbours" in str(recipe.data.scenes)
    with rasterio.open(folder / "images" / f"{NAMES[0]}.tif") as file:
        assert file.shape == (SIDE, SIDE)
    links = tmp_path / "links"  # folders of classes
    for k, name in enumerate(("road", "park")):
        for i in range(6):
            write_image(tmp_path / name / "deep" / f"{name}{i}.jpg", 6 * k + i, crs=None)
        (links / name).mkdir(parents=True)
        (links / name / "own").symlink_to(tmp_path / name)
    assert written(links, overwrite=True).data.kind == "images"


def test_a_published_data_set_by_name(shared_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "eurosat"
    for path in sorted((shared_data / "eurosat").glob("EuroSAT_RGB/*/*.jpg"))[::100]:
        target = copy / path.relative_to(shared_data / "eurosat")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    names = [path.name for path in sorted(copy.rglob("*.jpg"))]
    for i, split in enumerate(("train", "val", "test")):
        (copy / f"eurosat-{split}.txt").write_text("\n".join(names[i::3]) + "\n")
    for folder in (copy, copy / "EuroSAT_RGB"):
        recipe = written(folder)
        assert (recipe.data.kind, recipe.data.name) == ("named", "eurosat_rgb")
        assert recipe.data.root == copy and recipe.data.split.kind == "published"
        assert [*recipe.backbone.bands] == ["red", "green", "blue"]


# ---------------------------------------------------------------- bad input
def test_folders_without_images_or_labels(tmp_path: Path) -> None:
    with raises("file-missing", file=tmp_path / "none"):
        init(tmp_path / "none", tmp_path / "x.yaml")
    (tmp_path / "empty").mkdir()
    with raises("scenes-missing", mentions=["no file", PAGES["init"]]):
        init(tmp_path / "empty", tmp_path / "x.yaml")
    (tmp_path / "empty" / "a.pdf").touch()
    with raises("scenes-missing", mentions=["1 .pdf"]):
        init(tmp_path / "empty", tmp_path / "x.yaml")
    write_image(tmp_path / "images" / "a.tif")
    with raises("labels-missing", mentions=["1 image (a.tif)", "no labels", PAGES["init"]]):
        init(tmp_path / "images", tmp_path / "x.yaml")
    assert not list(tmp_path.glob("x*"))


def test_labels_of_other_names_and_places(tmp_path: Path) -> None:
    shape = shapely.box(0, 0, 10, 10)
    for i in range(3):
        write_image(tmp_path / "sites" / f"a{i}.tif", i)
        frame = geopandas.GeoDataFrame({"class": ["x"]}, geometry=[shape], crs="EPSG:32633")
        frame.to_file(tmp_path / "sites" / f"b{i}.geojson")
    with raises("labels-missing", mentions=["3 images", "3 label files", "named", PAGES["init"]]):
        init(tmp_path / "sites", tmp_path / "x.yaml")
    for i in range(3):
        shutil.move(tmp_path / "sites" / f"b{i}.geojson", tmp_path / "sites" / f"a{i}.geojson")
    with raises("labels-outside", mentions=["a0.geojson", PAGES["scenes"]]):
        init(tmp_path / "sites", tmp_path / "x.yaml")


def test_images_with_different_bands(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES[:4]):
        write_image(tmp_path / "mix" / f"{name}.tif", i, bands=4 if i else 3)
        write_mask(tmp_path / "mix" / f"{name}_mask.png", i)
    with raises("bands-inconsistent", mentions=["3 images of 4 bands", "1 image of 3 bands"]):
        init(tmp_path / "mix", tmp_path / "x.yaml")


def test_other_files_are_passed_over_and_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES[:4]):
        write_image(tmp_path / "use" / "train" / "road" / f"{name}.jpg", i, crs=None)
    (tmp_path / "use" / "notes.csv").write_bytes(b"caf\xe9,1\n")
    (tmp_path / "use" / "train_notes.txt").write_bytes(b"caf\xe9\n")
    write_image(tmp_path / "use" / "val" / "road" / "z.jpg", 9, bands=1, crs=None)
    with raises("bands-inconsistent"):  # after the table was written
        init(tmp_path / "use", tmp_path / "x.yaml")
    assert not list(tmp_path.glob("x*"))


def test_options_that_do_not_fit_the_labels(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES[:4]):
        write_image(tmp_path / "a" / f"{name}.tif", i)
        write_mask(tmp_path / "a" / f"{name}_mask.png", i)
    with raises("option-not-applicable", mentions=["--task detect", "segment or regress"]):
        init(tmp_path / "a", tmp_path / "x.yaml", task="detect")
    with raises("class-count", mentions=["2 values: 0, 255"]):
        init(tmp_path / "a", tmp_path / "x.yaml", classes=["roof"])


def test_options_without_an_effect(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES[:4]):
        write_image(tmp_path / "a" / f"{name}.tif", i)
        write_mask(tmp_path / "a" / f"{name}_mask.png", i)
    with raises("option-not-applicable", mentions=["--class-field kind", "vector"]):
        init(tmp_path / "a", tmp_path / "x.yaml", class_field="kind")
    with raises("option-invalid", mentions=["--bands"]):
        init(tmp_path / "a", tmp_path / "x.yaml", bands=[])
    with raises("output-not-writable", file=tmp_path / "a" / NAMES[0] / "x.yaml"):
        (tmp_path / "a" / NAMES[0]).touch()
        init(tmp_path / "a", tmp_path / "a" / NAMES[0] / "x.yaml")


def test_links_that_lead_nowhere_or_to_themselves(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES[:4]):
        write_image(tmp_path / "a" / f"{name}.tif", i)
        write_mask(tmp_path / "a" / f"{name}_mask.png", i)
    (tmp_path / "a" / "self.tif").symlink_to("self.tif")
    (tmp_path / "a" / "gone.tif").symlink_to("nowhere.tif")
    (tmp_path / "a" / "again").symlink_to("..")
    assert len(files_below(tmp_path / "a")) == 8


def test_an_empty_class_folder(tmp_path: Path) -> None:
    for i in range(6):
        write_image(tmp_path / "a" / ("road", "field")[i % 2] / f"{i}.png", i, crs=None)
    (tmp_path / "a" / "forest").mkdir()
    with raises("scenes-missing", file=tmp_path / "a" / "forest", mentions=["remove the folder"]):
        init(tmp_path / "a", tmp_path / "x.yaml")


def test_masks_in_a_folder_of_any_name_beside_images_of_one_band(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES):
        write_image(tmp_path / "a" / "bilder" / f"{name}.tif", i, bands=1)
        write_mask(tmp_path / "a" / "masken" / f"{name}.png", i)
    recipe = written(tmp_path / "a")
    assert recipe.task.kind == "segment" and "masken" in str(recipe.data.labels)


def test_nan_pixels_of_images_without_a_nodata_value_are_no_data(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES[:4]):
        path = write_image(tmp_path / "a" / f"{name}.tif", i)
        with rasterio.open(path) as file:
            values, profile = file.read().astype(np.float32), file.profile
        values[:, :9] = np.nan
        with rasterio.open(path, "w", **{**profile, "dtype": "float32"}) as file:
            file.write(values)
        write_mask(tmp_path / "a" / f"{name}_mask.png", i)
    nodata = written(tmp_path / "a").data.nodata
    assert nodata is not None and np.isnan(nodata)


def yolo(folder: Path, line: str, names: str | None = None) -> Path:
    """Six images with a label each, and the names in `data.yaml`."""
    for i in range(6):
        write_image(folder / "images" / f"{i}.png", i, crs=None)
        (folder / "labels").mkdir(exist_ok=True)
        (folder / "labels" / f"{i}.txt").write_text(line)
    if names is not None:
        (folder / "data.yaml").write_text(f"names: {names}\n")
    return folder


@pytest.mark.parametrize(
    ("line", "names", "code", "mentions"),
    [
        ("3 0.5 0.5 0.2 0.2", "[ship]", "class-unknown", ["1 name (ship)", "class 3"]),
        ("0 0.5 0.5 0.2 0.2", "5", "file-unreadable", ["names: found 5", "[ship, crane]"]),
        ("0 0.5 0.5 nan 0.2", "[ship]", "row-invalid", ["0.txt", "line 1", "not finite"]),
        ("", "[ship]", "label-format-unknown", ["0.txt", "empty", "all 6 label files"]),
    ],
)
def test_labels_that_do_not_fit_their_names(
    tmp_path: Path, line: str, names: str, code: str, mentions: list[str]
) -> None:
    with raises(code, mentions=mentions):
        init(yolo(tmp_path / "a", line, names), tmp_path / "x.yaml")


def test_names_by_number_keep_their_numbers(tmp_path: Path) -> None:
    folder = yolo(tmp_path / "a", "2 0.5 0.5 0.2 0.2", "{0: ship, 2: crane}")
    init(folder, tmp_path / "x.yaml")
    values = yaml.safe_load((tmp_path / "x.yaml").read_text())
    assert values["task"]["classes"] == ["ship", "class_1", "crane"]


def test_labels_in_damaged_json(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "a.png", crs=None)
    (tmp_path / "a" / "annotations.json").write_text('{"images": [')
    path = tmp_path / "a" / "annotations.json"
    with raises("file-unreadable", file=path, mentions=["invalid or truncated JSON"]):
        init(tmp_path / "a", tmp_path / "x.yaml")


def test_pages_that_errors_name_exist() -> None:
    root = Path(__file__).parents[2]
    assert [page for page in PAGES.values() if not (root / page).is_file()] == []


@pytest.mark.parametrize(
    ("attribute", "texts", "name"),
    [
        ("type", ["vessel", "vessel"], "vessel"),
        ("type", ["7", "7"], "object"),
        ("source", ["drawn", "drawn"], "object"),
    ],
)
def test_an_attribute_with_one_text_is_the_class_if_its_name_says_so(
    tmp_path: Path, attribute: str, texts: list[str], name: str
) -> None:
    for i, site in enumerate(NAMES[:6]):
        image = write_image(tmp_path / "sites" / f"{site}.tif", i)
        left, _, _, top = rasterio.open(image).bounds
        shapes = [shapely.Point(left + 150 * k, top - 150 * k).buffer(60) for k in (1, 2)]
        frame = geopandas.GeoDataFrame({attribute: texts}, geometry=shapes, crs="EPSG:32633")
        frame.to_file(image.with_suffix(".geojson"))
    recipe = written(tmp_path / "sites")
    assert recipe.data.class_field == (attribute if name != "object" else None)
    assert recipe.task.classes == ["background", name]
