"""Several runs over the same scenes: equal to each alone, with one pass of their backbone."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import rasterio
import torch

from geotune.backbones.base import Backbone
from geotune.mapping.map_scenes import map_scenes
from geotune.mapping.store import LocalStore
from helpers.errors import raises

pytestmark = pytest.mark.usefixtures("workers_here")

FCOS = {
    "kind": "fcos", "channels": 8, "depth": 1, "num_levels": 2, "score_threshold": 0.0,
    "max_detections": 20,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "land": {},
    "ships": {
        "method": {"kind": "lst", "reduction": 4, "stem_width": 4},
        "task": {"kind": "detect", "classes": ["ship", "wake"], "boxes": "horizontal"},
        "decoder": FCOS,
    },
    "height": {
        "method": {"kind": "frozen"},
        "task": {"kind": "regress", "quantity": "height", "mean": 5, "std": 2},
    },
    "merged": {"method": {"kind": "lora", "rank": 2, "alpha": 4}},
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(
    untrained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Runs over one backbone, three of which leave it as it is, by name."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: Path(shutil.copytree(untrained(changes), folder / name))
        for name, changes in RUNS.items()
    }


def mapped(runs: Any, scenes: Path, out: Path, **options: Any) -> Any:
    """A map of the scene `a`, which has 2 x 2 tiles, or of all images of another folder."""
    images = scenes / "a.tif" if (scenes / "a.tif").is_file() else scenes / "*.tif"
    usual: dict[str, Any] = {"tile": 128, "device": "cpu", "qgis": False, "polygons": False}
    return map_scenes(runs, str(images), out, **{**usual, **options})


def of(runs: dict[str, Path], *names: str) -> list[Path]:
    return [runs[name] for name in names]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each pass of a backbone in a prediction."""
    forward, seen = Backbone.forward, []

    def counted(self: Backbone, images: Any, **options: Any) -> Any:
        if torch.is_inference_mode_enabled():
            seen.append(len(images))
        return forward(self, images, **options)

    monkeypatch.setattr(Backbone, "forward", counted)
    return seen


def check_tiles_equal(one: Path, other: Path) -> None:
    """Check that the tiles of two maps hold the same numbers, to 1e-6."""
    names = sorted(p.relative_to(one) for p in (one / "tiles").rglob("*") if p.suffix != ".json")
    objects, maps = 0, 0
    for name in names:
        if name.suffix == ".tif":
            with rasterio.open(one / name) as a, rasterio.open(other / name) as b:
                np.testing.assert_allclose(a.read(), b.read(), rtol=0, atol=1e-6, equal_nan=True)
            maps += 1
        elif name.suffix == ".parquet":
            tables = [parquet.read_table(folder / name) for folder in (one, other)]
            windows = [table.schema.metadata[b"windows"] for table in tables]
            assert windows[0] == windows[1]
            objects += tables[0].num_rows
            for a, b in zip(*(table.columns for table in tables), strict=True):
                np.testing.assert_allclose(a.to_numpy(), b.to_numpy(), rtol=1e-6, atol=1e-5)
    assert maps or objects


def test_runs_share_one_pass_and_equal_each_alone(
    runs: dict[str, Path], scenes: Path, tmp_path: Path, passes: list[int]
) -> None:
    result = mapped(of(runs, "land", "ships", "height"), scenes, tmp_path / "map")
    together = passes.copy()
    assert list(result.runs) == ["land", "ships", "height"] and not result.failed
    assert result.done == result.tiles == 3 * 4
    assert "land, ships, height share one pass of timm/test_vit" in result.notes
    for name in result.runs:
        passes.clear()
        mapped(runs[name], scenes, tmp_path / name)
        if name != "ships":  # a detector alone skips the windows that start in other tiles
            assert passes == together, name
        check_tiles_equal(tmp_path / name, tmp_path / "map" / name)
    files = set(result.files)
    assert {"land/mosaic.vrt", "height/mosaic.gti.gpkg", "ships/catalog.json"} <= files
    colors = []
    for name, file in (("land", "a_classes.tif"), ("height", "a_height.tif")):
        with rasterio.open(tmp_path / "map" / name / "scenes" / file) as source:
            colors.append(source.colorinterp[0].name)
    assert colors[0] == "palette" and colors[1] == "gray"
    item = json.loads((tmp_path / "map/ships/scenes/a_item.json").read_text())
    assert "ship" in json.dumps(item) and "water" not in json.dumps(item)


def test_the_note_says_why_a_run_with_the_same_backbone_runs_by_itself(
    runs: dict[str, Path], scenes: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(runs["height"], tmp_path / "other"))
    adapter = json.loads((other / "adapter.json").read_text())
    adapter["normalization"]["offset"][0] += 1
    (other / "adapter.json").write_text(json.dumps(adapter))
    messages: list[str] = []
    result = mapped([runs["land"], other], scenes, tmp_path / "map", on_message=messages.append)
    text = "other runs by itself, as its normalisation (data.normalize) is not that of land"
    assert text in result.notes[0] and f"note: {result.notes[0]}" in messages


def test_progress_counts_the_tiles_that_are_done_already(
    runs: dict[str, Path], scenes: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []

    def on_progress(phase: str, done: int, total: int, seconds_left: float | None = None) -> None:
        if phase == "tiles":
            seen.append((done, total))

    mapped(runs["height"], scenes, tmp_path / "map", on_progress=on_progress)
    assert seen[0] == (0, 4) and seen[-1] == (4, 4)
    tile = next((tmp_path / "map/tiles/a").glob("*.tif"))
    tile.unlink()
    tile.with_suffix(".json").unlink()
    seen.clear()
    mapped(runs["height"], scenes, tmp_path / "map", on_progress=on_progress)
    assert seen[0] == (3, 4) and seen[-1] == (4, 4)


def test_the_page_of_an_interrupted_map_says_that_it_stopped(
    runs: dict[str, Path], scenes: Path, tmp_path: Path
) -> None:
    def interrupt(phase: str, done: int, total: int, seconds_left: float | None = None) -> None:
        if (phase, done) == ("tiles", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mapped(runs["height"], scenes, tmp_path / "map", on_progress=interrupt)
    page = (tmp_path / "map/index.html").read_text(encoding="utf-8")
    assert "stopped" in page and "refresh" not in page and "written again" not in page


def test_a_changed_backbone_runs_beside_the_shared_one(
    runs: dict[str, Path], scenes: Path, tmp_path: Path, passes: list[int]
) -> None:
    result = mapped(of(runs, "merged", "height", "land"), scenes, tmp_path / "map")
    together = len(passes)
    assert any(
        "merged runs by itself, as its method changes" in note
        and "height, land share one pass" in note
        for note in result.notes
    )
    passes.clear()
    mapped(runs["merged"], scenes, tmp_path / "merged")
    assert together == 2 * len(passes)
    check_tiles_equal(tmp_path / "merged", tmp_path / "map" / "merged")


def test_detectors_share_one_pass_over_their_own_windows(
    runs: dict[str, Path], scenes: Path, tmp_path: Path, passes: list[int]
) -> None:
    other = Path(shutil.copytree(runs["ships"], tmp_path / "boats"))
    mapped([runs["ships"], other], scenes, tmp_path / "map")
    together = passes.copy()
    passes.clear()
    mapped(runs["ships"], scenes, tmp_path / "ships")
    assert together == passes
    for name in ("ships", "boats"):
        check_tiles_equal(tmp_path / "ships", tmp_path / "map" / name)


@pytest.mark.slow
def test_orientations_are_shared(
    runs: dict[str, Path], scenes: Path, tmp_path: Path, passes: list[int]
) -> None:
    mapped(of(runs, "height", "land"), scenes, tmp_path / "map", tile=256, tta="flips")
    together = passes.copy()
    passes.clear()
    mapped(runs["height"], scenes, tmp_path / "height", tile=256, tta="flips")
    assert together == passes
    check_tiles_equal(tmp_path / "height", tmp_path / "map" / "height")


def test_a_further_run_and_a_lost_tile_are_added_to_a_finished_map(
    runs: dict[str, Path], scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped(of(runs, "land", "height"), scenes, tmp_path)
    tiles = sorted((tmp_path / "land" / "tiles").rglob("*.tif"))
    times = {path: path.stat().st_mtime_ns for path in tiles}
    lost = tiles.pop(2)
    lost.with_suffix(".json").unlink()
    write, written = LocalStore.write, []

    def noted(store: LocalStore, name: str, data: bytes) -> None:
        if name.startswith("tiles/") and not name.endswith(".json"):
            written.append(f"{Path(store.root).name}/{name}")
        write(store, name, data)

    monkeypatch.setattr(LocalStore, "write", noted)
    mapped(of(runs, "land", "height", "ships"), scenes, tmp_path)
    assert sum(name.startswith("ships/") for name in written) == 4
    assert [name for name in written if not name.startswith("ships/")] == [
        lost.relative_to(tmp_path).as_posix()
    ]
    assert all(path.stat().st_mtime_ns == times[path] for path in tiles)


def test_tables_share_one_pass(
    untrained: Callable[..., Path],
    runs: dict[str, Path],
    scenes: Path,
    tmp_path: Path,
    passes: list[int],
) -> None:
    changes = {
        "decoder": {"kind": "global_pool"},
        "data": {"kind": "images", "images": "i", "window": 32, "split": {"kind": "random"}},
    }
    labels = [{"classes": ["x", "y"]}, {"classes": ["p", "q", "r"]}]
    two = [untrained({"task": {"kind": "classify", **each}, **changes}) for each in labels]
    folder = tmp_path / "images"
    folder.mkdir()
    with rasterio.open(scenes / "a.tif") as file:
        for number in range(3):
            profile = {**file.profile, "height": 32, "width": 32}
            with rasterio.open(folder / f"i{number}.tif", "w", **profile) as small:
                small.write(file.read(window=rasterio.windows.Window(60, 50 + number, 32, 32)))
                small.descriptions = file.descriptions
    mapped(two, folder, tmp_path / "map")
    assert passes == [3]
    for run in two:
        mapped(run, folder, tmp_path / "alone" / run.name)
        tables = [
            list(csv.reader((tmp_path / each / run.name / "scenes/images.csv").open()))
            for each in ("map", "alone")
        ]
        assert tables[0][0] == tables[1][0] and len(tables[0]) == 4
        for one, other in zip(tables[0][1:], tables[1][1:], strict=True):
            assert one[:3] == other[:3]
            np.testing.assert_allclose([*map(float, one[3:])], [*map(float, other[3:])], atol=2e-6)
    with raises("runs-mismatch", mentions=["one table of all images", "one map of each scene"]):
        mapped([*two, runs["land"]], folder, tmp_path / "mixed")


def test_unreadable_parts_are_listed_for_each_run(
    runs: dict[str, Path], scenes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    shutil.copy(scenes / "b.tif", folder)
    with rasterio.open(folder / "b.tif") as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_0_2", "TIFF", bidx=1))
    with (folder / "b.tif").open("r+b") as raw:
        raw.seek(start)
        raw.write(bytes(40))
    result = mapped(of(runs, "land", "height"), folder, tmp_path / "map", tile=64)
    lost = [sorted(each.tile for each in run.failed) for run in result.runs.values()]
    assert lost[0] == lost[1] == ["b/128_0", "b/192_0", "b/64_0"]
    assert (tmp_path / "map/height/scenes/b_height.tif").is_file()


@pytest.mark.slow
def test_shards_are_combined(runs: dict[str, Path], scenes: Path, tmp_path: Path) -> None:
    some = of(runs, "land", "height")
    for shard in ("1/2", "0/2"):
        mapped(some, scenes, tmp_path / "shards", shard=shard)
    mapped(some, scenes, tmp_path / "shards", combine=True)
    mapped(some, scenes, tmp_path / "whole")
    for file in ("land/scenes/a_classes.tif", "height/scenes/a_height.tif"):
        assert (tmp_path / "shards" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_options_go_to_the_runs_that_they_apply_to(
    runs: dict[str, Path], scenes: Path, tmp_path: Path
) -> None:
    some = of(runs, "land", "height")
    mapped(some, scenes, tmp_path / "map", probabilities=True)
    assert (tmp_path / "map/land/scenes/a_probabilities.tif").is_file()
    assert not list((tmp_path / "map/height").rglob("*probabilities*"))
    with raises("option-not-applicable", mentions=["--score", "classes, values"]):
        mapped(some, scenes, tmp_path / "other", score=0.5)
    with raises("option-not-applicable", key="--ensemble"):
        mapped(some, scenes, tmp_path / "other", ensemble=[runs["land"]])


def test_runs_that_cannot_be_mapped_together_are_refused(
    runs: dict[str, Path], scenes: Path, tmp_path: Path, untrained: Callable[..., Path]
) -> None:
    with raises("option-invalid", mentions=["both named land", "rename"]):
        mapped([runs["land"], Path(shutil.copytree(runs["land"], tmp_path / "x/land"))], scenes,
               tmp_path / "map")  # fmt: skip
    wider = untrained({"data.window": 48})
    with raises("runs-mismatch", mentions=["data.window is 48, not 32", "--window"]):
        mapped([runs["land"], wider], scenes, tmp_path / "map")
    coarser = untrained({"data.resolution": "20 m"})
    with raises("runs-mismatch", mentions=["data.resolution", "not set"]):
        mapped([runs["land"], coarser], scenes, tmp_path / "map")
    assert not (tmp_path / "map").exists()
    mapped(runs["land"], scenes, tmp_path / "single", shard="0/99")
    with raises("map-exists", key="--out", mentions=["a single run"]):
        mapped(of(runs, "land", "height"), scenes, tmp_path / "single")


def test_the_command_takes_several_runs(
    geotune: Any, runs: dict[str, Path], scenes: Path, tmp_path: Path
) -> None:
    code, out, err = geotune(
        "map", runs["land"], runs["height"], "--scenes", scenes / "b.tif", "--out", tmp_path / "m",
        "--tile", 256, "--no-polygons", "--no-qgis", "--json",
    )  # fmt: skip
    values = json.loads(out)
    assert code == 0 and list(values["runs"]) == ["land", "height"]
    assert values["done"] == values["tiles"] == 2
    assert err.count("note: land, height share one pass") == 1
    code, out, err = geotune(
        "map", runs["land"], runs["height"], "--scenes", scenes / "b.tif", "--out", tmp_path / "m",
        "--tile", 256, "--no-polygons", "--no-qgis",
    )  # fmt: skip
    assert code == 0 and "2 of 2 tiles of 1 scene with 2 runs in" in out
