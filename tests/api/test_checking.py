"""`geotune check`, and the same errors in `geotune fit`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

from geotune.config import parse_recipe
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data
from helpers.corrupt_files import masks, write
from helpers.errors import raises

Command = Callable[..., tuple[int, str, str]]


class Data:
    """A valid data set of six scenes, to be corrupted, and its recipe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.values = masks(folder)

    def scene(self, name: str) -> Path:
        return self.folder / "scenes" / f"{name}.tif"

    def change(self, name: str, change: Callable[[Any], Any], at: str | None = None) -> None:
        """Change the values of a scene, and move it to the location of scene `at`."""
        with rasterio.open(self.scene(name)) as file:
            array = file.read()
        index = "abcdef".index(at or name)
        write(self.scene(name), change(array).astype("float32"), index)
        label = self.folder / "labels" / f"{name}.tif"
        with rasterio.open(label) as file:
            mask = file.read()
        write(label, mask, index)

    def recipe(self) -> Path:
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(self.values))
        return path


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path / "data")


@pytest.fixture
def check(geotune: Command, data: Data) -> Callable[..., tuple[int, dict[str, Any]]]:
    def run(*overrides: str) -> tuple[int, dict[str, Any]]:
        page = data.folder / "page.html"
        code, out, err = geotune("check", data.recipe(), *overrides, "--json", "--page", page)
        assert "Traceback" not in err
        return code, json.loads(out)

    return run


def texts(result: dict[str, Any], severity: str) -> list[str]:
    return [issue["text"] for issue in result["findings"] if issue["severity"] == severity]


def test_valid_data_has_no_errors(check: Any, data: Data) -> None:
    code, result = check()
    assert code == 0 and result["errors"] == 0 and result["scenes"] == 6
    assert result["distances_m"]["train-val"] == pytest.approx(520, rel=1e-2)
    assert result["class_counts"]["val"].keys() == {"land", "water"}
    page = (data.folder / "page.html").read_text()
    assert "Training would start" in page or "No problems found" in page
    assert page.count("data:image/jpeg;base64,") == 2 * 6  # six scenes, each with its labels
    assert ">EPSG:32633<" in page and page.count("<td>train</td>") == 4
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert len(re.findall("<svg", page)) == 3
    assert not re.search(r'(src|href)="(?!#|data:)', page)


def test_check_reports_every_error_and_fit_stops_at_the_first(check: Any, data: Data) -> None:
    data.scene("a").write_bytes(b"no raster")
    data.scene("c").write_bytes(data.scene("c").read_bytes()[:9000])
    data.change("e", lambda a: np.where(a == a.max(), np.nan, a))
    (data.folder / "labels" / "d.tif").unlink()
    code, result = check("data.split.val=[e,f]", "data.split.test=[]")
    assert code == 1
    errors = texts(result, "error")
    for name in ("scenes/a.tif", "scenes/c.tif", "scenes/e.tif", "labels/d.tif"):
        assert any(name in text for text in errors), (name, errors)
    with pytest.raises(GeotuneError) as caught:
        build_data(parse_recipe(data.values))
    assert any(str(caught.value).split(" (")[0] in text for text in errors)


def test_chips_that_are_not_read_are_reported_by_check_and_fit(check: Any, data: Data) -> None:
    folders = {"images": str(data.folder / "scenes"), "masks": str(data.folder / "labels")}
    data.values["data"] = {
        **{key: data.values["data"][key] for key in ("window", "split")},
        "kind": "chips",
        **folders,
    }
    for folder in folders.values():
        (Path(folder) / "more").mkdir()
        for path in Path(folder).glob("*.tif"):
            shutil.copy(path, Path(folder) / "more" / path.name)
    code, result = check()
    found = [text for text in texts(result, "warning") if "not used" in text]
    assert code == 0 and len(found) == 2 and all("6 rasters" in text for text in found)
    assert set(found) <= set(build_data(parse_recipe(data.values)).notes)


@pytest.mark.parametrize(
    ("colors", "described"),
    [("colors", False), ("grey", False), ("colors", True)],
)
def test_images_with_a_palette_are_reported_by_check_and_fit(
    check: Any, data: Data, colors: str, described: bool
) -> None:
    """Unless index and colour are the same, or the file describes the band."""
    table = {i: (i, i if colors == "grey" else 255 - i, i, 255) for i in range(256)}
    for index, path in enumerate(sorted((data.folder / "scenes").glob("*.tif"))):
        with rasterio.open(path) as file:
            profile, values = file.profile, file.read(1)
        noise = np.random.default_rng(index).integers(0, 200, values.shape).astype("uint8")
        profile |= {"count": 1, "dtype": "uint8", "nodata": None, "photometric": "palette"}
        with rasterio.open(path, "w", **profile) as file:
            file.write(noise, 1)
            file.write_colormap(1, table)
            file.descriptions = ("cover" if described else None,)
    data.values["backbone"]["bands"] = 1
    code, result = check()
    found = [text for text in texts(result, "warning") if "palette" in text]
    assert code == 0 and len(found) == (colors == "colors" and not described)
    for text in found:
        assert "a.tif" in text and "5 other images" in text and "-expand rgb" in text
    assert set(found) <= set(build_data(parse_recipe(data.values)).notes)


@pytest.mark.parametrize("kind", ["scenes", "labels"])
def test_each_error_is_reported_once_if_no_scene_is_usable(
    check: Any, data: Data, kind: str
) -> None:
    for path in (data.folder / kind).iterdir():
        path.write_bytes(b"no raster")
    code, result = check()
    errors = texts(result, "error")
    assert code == 1 and result["errors"] == len(errors) == 6
    assert [sum(f"{kind}/{name}.tif" in text for text in errors) for name in "abcdef"] == [1] * 6
    with raises("file-unreadable", mentions=["a.tif"]):
        build_data(parse_recipe(data.values))


@pytest.mark.parametrize("damage", ["class", "no label", "no image", "elsewhere"])
@pytest.mark.parametrize("val", [["e"], ["e", "d"]])
def test_unusable_scenes_give_no_error_about_their_split(
    check: Any, data: Data, damage: str, val: list[str]
) -> None:
    """Validation has one scene, or another one without labels."""
    label = data.folder / "labels" / "e.tif"
    write(data.folder / "labels" / "d.tif", np.full((1, 48, 48), 255, "uint8"), 3)
    if damage == "class":
        write(label, np.full((1, 48, 48), 9, "uint8"), 4)
    elif damage == "no label":
        label.unlink()
    elif damage == "no image":
        data.scene("e").write_bytes(b"")
    else:
        write(label, np.zeros((1, 60, 48), "uint8"), 4, crs=None, transform=None)
    code, result = check(f"data.split.val={val}".replace("'", ""), "data.split.train=[a,b,c]")
    assert code == 1 and result["errors"] == 1
    [error] = texts(result, "error")
    assert "e.tif" in error and "split" not in error


def test_overlaps_across_splits_are_an_error_unless_allowed(check: Any, data: Data) -> None:
    data.change("e", lambda a: a, at="a")
    code, result = check()
    [text] = [text for text in texts(result, "error") if "overlap" in text]
    assert code == 1 and "a.tif (train)" in text and "e.tif (val)" in text
    assert re.search(r"overlap by 230,\d{3} m2", text)  # 48 x 48 pixels of 10 m
    with raises("split-leakage", key="data.split", mentions=[text[:80]]):
        build_data(parse_recipe(data.values))
    code, result = check("data.split.allow_overlap=true")
    assert code == 0 and text in texts(result, "warning")


def test_identical_pixels_in_two_splits_are_an_error(check: Any, data: Data) -> None:
    with rasterio.open(data.scene("a")) as file:
        image = file.read()
    data.change("f", lambda _: image)
    data.change("b", lambda _: image)
    code, result = check()
    [text] = texts(result, "error")
    assert code == 1 and "identical pixels" in text
    assert "a.tif (train)" in text and "f.tif (test)" in text
    data.change("f", lambda a: a + 1)
    code, result = check()
    assert code == 0 and any("more than once" in text for text in texts(result, "note"))


def test_unusual_values_give_warnings(check: Any, data: Data) -> None:
    data.change("a", lambda a: a / 10_000)
    data.change("b", lambda a: np.minimum(a, np.percentile(a, 97)))
    data.change("c", lambda a: np.stack([a[0], a[1], np.full_like(a[2], 7)]))

    def border(array: Any) -> Any:
        array[:, :6] = 255
        return array

    data.change("d", border)
    code, result = check()
    warnings = texts(result, "warning")
    assert code == 0
    for pattern in (
        r"a\.tif \(mean 0\.0\d+\).*: probably in other units than the rest, with a mean of about",
        r"b\.tif: .*% of the pixels of band red have its maximum .*; clipped bands: red, .*in 1 of",
        r"band nir is constant in 1 of . scenes: .*c\.tif",
        r"d\.tif: 12\.5% of its pixels have the value 255 in every band.*data\.nodata: 255",
    ):
        assert any(re.search(pattern, text) for text in warnings), (pattern, warnings)
    # other files are not reported as clipped or filled
    assert not any("clipped" in text and "d.tif" in text for text in warnings)


def test_a_grey_between_the_values_of_a_scene_is_no_fill_value(check: Any, data: Data) -> None:
    """Such as a dark lake in a small picture: two of 48 rows; a lower value would be reported."""

    def rows(value: float) -> Any:
        def change(array: Any) -> Any:
            array[:, :2] = value
            return array

        return change

    data.change("a", rows(float(np.median(data_of(data, "a")))))
    assert not [text for text in texts(check()[1], "warning") if "in every band" in text]
    data.change("b", rows(0))
    [text] = [text for text in texts(check()[1], "warning") if "in every band" in text]
    assert "b.tif: 4.2% of its pixels have the value 0" in text


def data_of(data: Data, name: str) -> Any:
    with rasterio.open(data.scene(name)) as file:
        return file.read()


@pytest.mark.parametrize("stored", ["equal", "almost equal"])
def test_grey_pictures_in_three_bands_have_no_fill_value(
    check: Any, data: Data, stored: str
) -> None:
    """As thermal pictures are stored: black and white are values like others."""

    def grey(array: Any) -> Any:
        values = np.clip(np.random.default_rng(0).normal(20, 30, array.shape[1:]), 0, 255).round()
        image = np.stack([values] * len(array))
        if stored == "almost equal":
            image[0, ::3] += 1  # a JPEG rounds
        return image

    for name in "abcdef":
        data.change(name, grey)
    assert not [text for text in texts(check()[1], "warning") if "in every band" in text]


@pytest.mark.parametrize("value", [-3.4028235e38, -9999.99, -9999.0])
def test_the_advice_about_nodata_works(check: Any, data: Data, value: float) -> None:
    def border(array: Any) -> Any:
        array = array.astype("float32")
        array[:, :6] = value
        return array

    data.change("a", border)
    [text] = [text for text in texts(check()[1], "warning") if "in every band" in text]
    advice = text.partition("set data.nodata: ")[2]
    assert advice
    assert not [t for t in texts(check(f"data.nodata={advice}")[1], "warning") if "a.tif: 1" in t]


def test_data_nodata_is_not_advised_for_files_that_state_one(check: Any, data: Data) -> None:
    with rasterio.open(data.scene("a"), "r+") as file:
        file.nodata = 1
        image = file.read()
        image[:, :6] = 255
        file.write(image)
    [text] = [text for text in texts(check()[1], "warning") if "in every band" in text]
    assert "gdal_edit.py -a_nodata 255" in text and "data.nodata" not in text


def test_swapped_bands_give_a_warning(check: Any, data: Data) -> None:
    offsets = np.array([0, 500, 1000])[:, None, None]
    for name in "abcdef":
        data.change(name, lambda a: a + offsets)
    _, result = check()
    assert not any("swapped" in text for text in texts(result, "warning"))
    data.change("c", lambda a: a[[2, 1, 0]])
    _, result = check()
    [text] = [text for text in texts(result, "warning") if "swapped" in text]
    assert "c.tif: its bands may be swapped: red resembles nir, nir resembles red" in text


def test_other_scale_and_offset_of_a_scene_give_a_warning(check: Any, data: Data) -> None:
    for name in "abcdef":
        with rasterio.open(data.scene(name), "r+") as file:
            file.scales = [0.0001] * 3
            if name == "c":
                file.offsets = [-0.1] * 3
    [text] = [text for text in texts(check()[1], "warning") if "scale and offset" in text]
    assert "is 0.0001 and 0 in 5 of 6" in text and "c.tif (0.0001 and -0.1)" in text


def test_inconsistent_files_give_warnings(check: Any, data: Data) -> None:
    with rasterio.open(data.scene("b")) as file:
        image = file.read()
        larger = file.transform @ Affine.scale(1.5)
    write(data.scene("b"), image.astype("uint16"), 1, nodata=0, transform=larger)
    _, result = check()
    warnings = " ".join(texts(result, "warning"))
    assert re.search(r"pixel size is .* m in 5 of 6 scenes.*data\.resolution", warnings)
    assert re.search(r"data type is float32 in 5 of 6 scenes, but not in .*b\.tif", warnings)
    assert re.search(r"nodata value is None in 5 of 6 scenes, but not in .*b\.tif", warnings)


def test_bad_samples_are_skipped_and_listed(data: Data) -> None:
    names = "abcdef"
    for i in range(40):
        image = np.random.default_rng(100 + i).normal(500, 60, (3, 48, 48)).astype("float32")
        write(data.folder / "scenes" / f"s{i}.tif", image, 10 + i)
        write(data.folder / "labels" / f"s{i}.tif", np.ones((1, 48, 48), "uint8"), 10 + i)
    data.values["data"]["split"]["train"] = [*"abcd", *(f"s{i}" for i in range(40))]
    data.scene("a").write_bytes(b"")
    data.change("b", lambda a: np.where(a == a.max(), np.nan, a))
    with raises("file-unreadable", mentions=["a.tif"]):
        build_data(parse_recipe(data.values))
    data.values["train"]["skip_bad_samples"] = True
    made = build_data(parse_recipe(data.values))
    assert "a" not in made.splits["train"] and "b" not in made.splits["train"]
    assert len(made.splits["train"]) == 42 and len(made.skipped) == 2
    assert "a.tif" in made.skipped[0] and "band" in made.skipped[1]
    assert sum("skipped, for train.skip_bad_samples" in note for note in made.notes) == 2
    for name in names[:4]:
        data.scene(name).write_bytes(b"")
    with raises("samples-skipped", mentions=["4 of 46", "a, b, c, d"]):
        build_data(parse_recipe(data.values))


@pytest.mark.slow
def test_report_has_regions_distances_and_skipped_samples(
    geotune: Command, data: Data, tmp_path: Path
) -> None:
    """Two regions of three scenes: one is tested, the other trains and validates."""
    data.values["data"]["split"] = {
        "kind": "folds",
        "by": "^([abc]|[def])$",
        "folds": 2,
        "fold": 1,
        "val": 0.34,
    }
    data.values["train"]["run"] = str(tmp_path / "run")
    code, _, err = geotune("fit", data.recipe())
    assert code == 0, err
    code, out, err = geotune("test", tmp_path / "run", "--json")
    assert code == 0, err
    gap = json.loads(out)["gap"]
    assert gap["seen_in"] == "training"  # each scene is its own region here
    assert not set(gap["seen_regions"]) & set(gap["unseen_regions"])
    assert gap["unseen"]["miou"] == json.loads(out)["metrics"]["miou"]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Results by region" in report and "Distance between splits" in report
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["data"]["skipped"] == [] and run["data"]["distances_m"]["train-test"] > 0
