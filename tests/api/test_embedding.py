"""`geotune embed`: the written features are those that the model has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from geotune.api.embedding import embed
from geotune.api.novelty import write_novelty
from geotune.api.prediction import predict
from geotune.config import parse_recipe
from geotune.factory.build_data import build_data
from geotune.factory.build_model import build_training, load_adapter
from geotune.factory.save_model import save_model
from geotune.inference.novelty import NoveltyReference
from geotune.normalization import choose_normalization
from geotune.types import BandStatistics
from helpers.errors import raises

Values = Callable[..., dict[str, Any]]
STATISTICS = BandStatistics(("red", "green", "nir"), (500.0,) * 3, (100.0,) * 3, 9)
WINDOW = 64
"""One window covers a scene."""


@pytest.fixture
def adapter(tmp_path: Path, tiny_values: Values, make_backbone: Any) -> Callable[..., Path]:
    """Saves the adapter of an untrained model with random trained tensors."""
    del make_backbone  # registers the small backbones

    def save(method: dict[str, Any], name: str = "timm/test_vit") -> Path:
        changes = {"method": method, "data.window": WINDOW, "backbone.name": name}
        recipe = parse_recipe(tiny_values(changes))
        built = build_training(recipe, STATISTICS)
        generator = torch.Generator().manual_seed(1)
        for parameter in built.model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data.add_(noise, alpha=0.1)
        save_model(tmp_path / "adapter", built, recipe)
        return tmp_path / "adapter"

    return save


def read(path: Path) -> np.ndarray[Any, Any]:
    with rasterio.open(path) as file:
        return file.read()


def pixels(scene: Path) -> torch.Tensor:
    return torch.from_numpy(read(scene))[None]


@pytest.mark.parametrize(
    "method",
    [
        {"kind": "est", "min_width": 8, "stem_width": 8},
        {"kind": "lora", "stem_width": 8},
        {"kind": "full", "stem_width": 0},
    ],
    ids=lambda method: method["kind"],
)
def test_features_of_a_run_are_those_of_its_encoder(
    adapter: Callable[..., Path], method: dict[str, Any], tiny_scenes: Path, tmp_path: Path
) -> None:
    folder, scene = adapter(method), tiny_scenes / "scenes" / "a.tif"
    result = embed(folder, scene, tmp_path / "out", device="cpu")
    built = load_adapter(folder)
    with torch.no_grad():
        maps, _ = built.model.encode(pixels(scene))
    expected = maps.maps[-1][0].numpy()
    np.testing.assert_allclose(read(result.scenes[0].features_path), expected, atol=2e-4)
    with rasterio.open(result.scenes[0].features_path) as file, rasterio.open(scene) as image:
        assert file.crs == image.crs and file.bounds == image.bounds
        assert file.res[0] == result.stride * image.res[0]
        assert file.tags()["backbone_fingerprint"] == built.backbone.fingerprint
        assert len(file.tags()["adapter_hash"]) == 64
        assert file.descriptions[:2] == ("dimension_0", "dimension_1")


def test_features_of_a_recipe_are_those_of_its_backbone(
    tiny_values: Values, tiny_scenes: Path, tmp_path: Path, make_backbone: Any
) -> None:
    scene = tiny_scenes / "scenes" / "a.tif"
    values = tiny_values({"data.window": WINDOW})
    result = embed(values, scene, tmp_path, layer=3, overlap=0.0, device="cpu")
    recipe = parse_recipe(values)
    statistics = build_data(recipe).statistics
    backbone = make_backbone("vit", bands=statistics.bands)
    normalization, _ = choose_normalization(backbone, statistics)
    offset, scale = (
        torch.tensor(x).view(1, 3, 1, 1) for x in (normalization.offset, normalization.scale)
    )
    with torch.no_grad():
        expected = backbone.eval()((pixels(scene) - offset) / scale, taps=[3]).maps[0][0].numpy()
    np.testing.assert_allclose(read(result.scenes[0].features_path), expected, atol=1e-4)
    with rasterio.open(result.scenes[0].features_path) as file:
        assert file.tags()["layer"] == backbone.taps[3].name
        assert file.tags()["backbone_fingerprint"] == backbone.fingerprint
        assert "adapter_hash" not in file.tags()


def test_components_are_computed_once_and_applied_to_other_scenes(
    adapter: Callable[..., Path], tiny_scenes: Path, tmp_path: Path
) -> None:
    folder = adapter({"kind": "full", "stem_width": 0})
    a, b = (tiny_scenes / "scenes" / f"{name}.tif" for name in "ab")
    both = embed(folder, [a, b], tmp_path / "both", pca=3, device="cpu")
    paths = [scene.features_path for scene in both.scenes]
    later = embed(folder, b, tmp_path / "later", pca=paths[0], device="cpu")
    np.testing.assert_array_equal(read(later.scenes[0].features_path), read(paths[1]))
    again = embed(folder, [a, b], tmp_path / "again", pca=3, device="cpu")
    assert again.scenes[0].features_path.read_bytes() == paths[0].read_bytes()
    with raises("option-invalid", mentions=["its components are of layer"]):
        embed(folder, b, tmp_path / "other", layer=0, pca=paths[0], device="cpu")
    with raises("option-invalid", mentions=["no map of features"]):
        embed(folder, b, tmp_path / "other", pca="three", device="cpu")


def test_integers_with_scale_and_offset_hold_the_features(
    adapter: Callable[..., Path], tiny_scenes: Path, tmp_path: Path
) -> None:
    folder, scene = adapter({"kind": "full", "stem_width": 0}), tiny_scenes / "scenes" / "a.tif"
    exact = embed(folder, scene, tmp_path / "exact", device="cpu").scenes[0].features_path
    small = embed(folder, scene, tmp_path / "small", int8=True, device="cpu").scenes[0]
    with rasterio.open(small.features_path) as file:
        assert file.dtypes[0] == "int8" and file.nodata == -128
        scale, offset = (np.array(x)[:, None, None] for x in (file.scales, file.offsets))
        stored = file.read()
    error = np.abs(stored * scale + offset - read(exact))
    assert (error <= 0.501 * scale + 1e-5)[np.abs(stored) < 127].all()


def test_the_table_has_a_row_for_each_window(
    adapter: Callable[..., Path], tiny_scenes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    import geopandas

    folder = adapter({"kind": "full", "stem_width": 0})
    scenes = [tiny_scenes / "scenes" / f"{name}.tif" for name in "ab"]
    result = embed(
        folder, scenes, tmp_path / "out", maps=False, pooled=True, window=32, device="cpu"
    )
    assert [scene.features_path for scene in result.scenes] == [None, None]
    table = geopandas.read_parquet(result.table_path)
    assert table.crs.to_epsg() == 32633 and len(table) == 8
    assert list(table.scene) == ["a"] * 4 + ["b"] * 4
    with rasterio.open(scenes[0]) as image:
        assert tuple(table.geometry[:4].total_bounds) == tuple(image.bounds)
    with torch.no_grad():
        maps, _ = load_adapter(folder).model.encode(pixels(scenes[0])[..., :32, :32])
    expected = maps.maps[-1][0].mean(dim=(1, 2)).numpy()
    np.testing.assert_allclose(table.features[0], expected, atol=1e-4)
    assert table.window[3] == "32-32"


def test_a_scene_without_georeference_or_data(adapter: Callable[..., Path], tmp_path: Path) -> None:
    folder = adapter({"kind": "full", "stem_width": 0})
    image = np.full((3, 70, 90), 500, dtype=np.float32)
    image[:, :32, :48] = np.nan
    path = tmp_path / "plain.tif"
    options = {"driver": "GTiff", "count": 3, "height": 70, "width": 90, "dtype": "float32"}
    with rasterio.open(path, "w", nodata=np.nan, **options) as file:
        file.write(image)
        file.descriptions = ("red", "green", "nir")
    result = embed(folder, path, tmp_path / "out", window=32, device="cpu")
    features = read(result.scenes[0].features_path)
    assert features.shape[1:] == (5, 6)  # cells of 16 pixels, cut ones included
    missing = np.isnan(features).all(axis=0)
    assert missing.sum() == 6 and missing[:2, :3].all()
    assert result.scenes[0].nodata_cells == 6
    assert any("no CRS" in note for note in result.scenes[0].notes)


def test_wrong_options_are_refused(
    adapter: Callable[..., Path], tiny_scenes: Path, tmp_path: Path
) -> None:
    folder, scene = adapter({"kind": "full"}), tiny_scenes / "scenes" / "a.tif"
    with raises(
        "option-invalid", mentions=["layer: found 99, expected one of 0 (blocks.0, stride 16)"]
    ):
        embed(folder, scene, tmp_path / "out", layer=99, device="cpu")
    with raises("option-invalid", mentions=["neither maps nor the table"]):
        embed(folder, scene, tmp_path / "out", maps=False, device="cpu")
    with raises("option-not-applicable", mentions=["trained without data.quality"]):
        embed(folder, scene, tmp_path / "out", quality="{stem}.tif", device="cpu")
    assert not (tmp_path / "out").exists()


def test_the_command(
    geotune: Callable[..., tuple[int, str, str]],
    adapter: Callable[..., Path],
    tiny_scenes: Path,
    tmp_path: Path,
) -> None:
    folder, scene = adapter({"kind": "full"}), tiny_scenes / "scenes" / "a.tif"
    arguments = ("--out", tmp_path / "out", "--layer", "-2", "--device", "cpu")
    code, out, err = geotune("embed", folder, scene, *arguments)
    assert code == 0, err
    assert "dimensions, a cell of 16 pixels" in out and "a_features.tif" in out
    assert geotune("embed", folder, "--out", tmp_path)[0] == 1


def test_an_input_is_not_replaced(
    adapter: Callable[..., Path], tiny_scenes: Path, tmp_path: Path
) -> None:
    run = adapter({"kind": "full", "stem_width": 0})
    for name in ("a", "a_features", "a_classes"):
        shutil.copy(tiny_scenes / "scenes" / "a.tif", tmp_path / f"{name}.tif")
    before = (tmp_path / "a_features.tif").read_bytes()
    for command, name in ((embed, "a_features.tif"), (predict, "a_classes.tif")):
        path = tmp_path / name
        with raises("output-exists", file=path, mentions=["is an input"]):
            command(run, [tmp_path / "a.tif", path], tmp_path)
        assert path.read_bytes() == before
    assert len(embed(run, tmp_path / "a*.tif", tmp_path / "maps").scenes) == 3


def test_files_of_an_earlier_run_are_named(
    adapter: Callable[..., Path], tiny_scenes: Path, tmp_path: Path
) -> None:
    run, scene = adapter({"kind": "full", "stem_width": 0}), tiny_scenes / "scenes" / "a.tif"
    out = tmp_path / "maps"
    both = embed(run, scene, out, pooled=True)
    assert not any("earlier run" in note for note in both.notes)
    for options, name in (({}, "features.parquet"), ({"maps": False, "pooled": True}, "a_feat")):
        notes = embed(run, scene, out, **options).notes
        [note] = [each for each in notes if "earlier run" in each]
        assert f"found {name}" in note
    [first] = predict(run, scene, out, uncertainty=True)
    assert not any("earlier run" in note for note in first.notes)
    [again] = predict(run, scene, out, polygons=False)
    [note] = [each for each in again.notes if "earlier run" in each]
    assert "found a_uncertainty.tif, a_polygons.gpkg of" in note
    assert {path.name for path in first.files} <= {path.name for path in out.iterdir()}


def test_a_reference_of_another_model_is_refused(
    adapter: Callable[..., Path], tiny_scenes: Path, tmp_path: Path
) -> None:
    run = adapter({"kind": "full", "stem_width": 0})
    features = torch.randn(100, 7, generator=torch.Generator().manual_seed(0))
    reference = NoveltyReference.fit(features[:50], features[50:])
    values = json.loads((run / "adapter.json").read_text())
    values["prediction"]["novelty"] = write_novelty(run, reference)
    (run / "adapter.json").write_text(json.dumps(values))
    with raises("adapter-mismatch", mentions=["features of 7 numbers"]):
        predict(run, tiny_scenes / "scenes" / "a.tif", tmp_path / "maps", novelty=True)
    assert not (tmp_path / "maps").exists()
