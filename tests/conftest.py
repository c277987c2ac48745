"""Fixtures shared by all tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin

from helpers.backbone_families import FAMILIES
from helpers.hub_server import Hub, running_hub

if TYPE_CHECKING:
    from torch import nn

    from geotune.backbones.base import Backbone

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
BANDS = ("red", "green", "nir")
SIDE = 64


@pytest.fixture(autouse=True, scope="session")
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder for the tests, also for subprocesses, in place of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and weights; skips the test if it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real data in ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def write_tiny_scenes() -> Callable[[Path], Path]:
    """Writes four scenes `scenes/{a,b,c,d}.tif` of three bands, with raster labels in `labels/`.

    Each shows a disc of water on land, 64x64 pixels of 10 m; every pixel is labelled.
    """

    def write(folder: Path) -> Path:
        for kind in ("scenes", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        rows, cols = np.mgrid[:SIDE, :SIDE]
        for i, name in enumerate("abcd"):
            rng = np.random.default_rng(i)
            water = (cols - 32 + 8 * i) ** 2 + (rows - 30) ** 2 < 400
            noise = 60 * rng.standard_normal((len(BANDS), SIDE, SIDE))
            steps = np.array([100.0, 200.0, 300.0])[:, None, None]
            profile: dict[str, Any] = {
                "driver": "GTiff",
                "height": SIDE,
                "width": SIDE,
                "crs": "EPSG:32633",
                "transform": from_origin(500_000 + i * SIDE * 10, 5_000_000, 10, 10),
            }
            path = folder / "scenes" / f"{name}.tif"
            with rasterio.open(path, "w", count=len(BANDS), dtype="float32", **profile) as file:
                file.write((400 + steps * water + noise).astype(np.float32))
                file.descriptions = BANDS
            path = folder / "labels" / f"{name}.tif"
            with rasterio.open(path, "w", count=1, dtype="uint8", **profile) as file:
                file.write(water.astype(np.uint8), 1)
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_scenes(
    tmp_path_factory: pytest.TempPathFactory, write_tiny_scenes: Callable[[Path], Path]
) -> Path:
    """The folder of `write_tiny_scenes`, for tests that only read it."""
    return write_tiny_scenes(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_values(tiny_scenes: Path) -> Callable[..., dict[str, Any]]:
    """The values of a recipe on these scenes that trains in about a second, with changes by key.

    `tiny_values({"train.epochs": 2, "method": {"kind": "full"}}, data=folder)`
    """

    def values(changes: dict[str, Any] | None = None, data: Path = tiny_scenes) -> dict[str, Any]:
        recipe: dict[str, Any] = {
            "backbone": {"name": "timm/test_vit", "pretrained": False, "bands": list(BANDS)},
            "method": {"kind": "est", "min_width": 8, "stem_width": 0},
            "decoder": {"kind": "linear"},
            "task": {"kind": "segment", "classes": ["land", "water"]},
            "data": {
                "kind": "scenes",
                "scenes": f"{data}/scenes/*.tif",
                "labels": f"{data}/labels/{{stem}}.tif",
                "window": 32,
                "samples": 8,
                "split": {"kind": "list", "train": ["a", "b"], "val": ["c"], "test": ["d"]},
            },
            "train": {
                "epochs": 3,
                "batch_size": 4,
                "lr": 3e-3,
                "accelerator": "cpu",
                "precision": "32-true",  # the same numbers on every machine
            },
        }
        for key, value in (changes or {}).items():
            section = recipe
            *parents, last = key.split(".")
            for part in parents:
                section = section.setdefault(part, {})
            section[last] = value
        return recipe

    return values


@pytest.fixture
def tiny_recipe(tmp_path: Path, tiny_values: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """Writes `tiny_values` to `recipe.yaml` in the test's folder; the run folder is `run`."""

    def write(changes: dict[str, Any] | None = None, **options: Any) -> Path:
        values = tiny_values({"train.run": str(tmp_path / "run"), **(changes or {})}, **options)
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """An empty hub on this machine, see `running_hub`; its cache is `hub_cache`."""
    with running_hub(monkeypatch, tmp_path / "hub_cache") as server:
        yield server


# ---------------------------------------------------------------- backbones
@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Each class of backbone, by name."""
    return str(request.param)


@pytest.fixture(scope="session")
def make_backbone() -> Callable[..., Backbone]:
    """Builds the small backbone of a class, `make_backbone("vit")`, with random weights."""
    import geotune

    _register_small_models()

    def make(
        family: str, bands: Sequence[str] | int = ("B02", "B03", "B04", "B08"), **options: Any
    ) -> Backbone:
        if family == "galileo":
            pytest.importorskip("rslearn")
            options = {"patch_size": 4, **options}
        name = FAMILIES.get(family, family)
        return geotune.backbone(name, bands=bands, **{"pretrained": False, **options})

    return make


def _register_small_models() -> None:
    """Register a Swin, Swin v2, BEiT and EVA-02 that are small enough for tests; timm has none."""
    from timm.models import register_model
    from timm.models.beit import beit_base_patch16_224
    from timm.models.eva import eva02_tiny_patch14_224
    from timm.models.swin_transformer import swin_tiny_patch4_window7_224
    from timm.models.swin_transformer_v2 import swinv2_tiny_window8_256

    small = {"window_size": 4, "embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 4)}

    def small_swin(pretrained: bool = False, **options: Any) -> nn.Module:
        model: nn.Module = swin_tiny_patch4_window7_224(pretrained, **small, **options)
        return model

    def small_swinv2(pretrained: bool = False, **options: Any) -> nn.Module:
        model: nn.Module = swinv2_tiny_window8_256(pretrained, **small, **options)
        return model

    tiny = {"depth": 2, "embed_dim": 32, "num_heads": 2}

    def small_beit(pretrained: bool = False, **options: Any) -> nn.Module:
        model: nn.Module = beit_base_patch16_224(pretrained, **tiny, **options)
        return model

    def small_eva02(pretrained: bool = False, **options: Any) -> nn.Module:
        model: nn.Module = eva02_tiny_patch14_224(pretrained, **tiny, **options)
        return model

    for model in (small_swin, small_swinv2, small_beit, small_eva02):
        register_model(model)


@pytest.fixture
def geotune(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a geotune command in this process; returns exit code, stdout and stderr."""
    from geotune.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["geotune", *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run
