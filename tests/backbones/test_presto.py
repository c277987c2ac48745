"""Presto: parity with rslearn, chunks of pixels, and bands by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geotune.backbones.base import Backbone
from geotune.backbones.rslearn import presto
from helpers.errors import raises
from helpers.method_cases import NEED_SPATIAL_TOKENS

pytest.importorskip("rslearn")
pytest.importorskip("einops")

MakeBackbone = Callable[..., Backbone]

S2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
WEATHER = ("temperature_2m", "total_precipitation")
TERRAIN = ("elevation", "slope")
RANGES = {"s2": (S2, 4000.0), "s1": (("VV", "VH"), -20.0), "era5": (WEATHER, 1.0)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the published format."""
    from rslearn.models.presto.single_file_presto import Presto

    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("presto") / "default_model.pt"
    torch.save(Presto.construct().state_dict(), path)
    return path


@pytest.fixture
def make(make_backbone: MakeBackbone) -> MakeBackbone:
    def build(bands: Any = ("B02", "B03", "B04", "B08"), **options: Any) -> Backbone:
        return make_backbone("rslearn/presto", bands=bands, **options).eval()

    return build


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def rslearn_image(images: Tensor, days: list[tuple[int, int]]) -> Any:
    from rslearn.train.model_context import RasterImage

    dates = [datetime(year, 1, 1) + timedelta(days=day - 1) for year, day in days]
    return RasterImage(images, timestamps=[(date, date) for date in dates])


@pytest.mark.parametrize("located", [False, True])
@pytest.mark.parametrize("dated", [False, True])
def test_the_last_map_equals_rslearns(
    weights: Path, make: MakeBackbone, located: bool, dated: bool
) -> None:
    from rslearn.models.presto.presto import Presto
    from rslearn.train.model_context import ModelContext, RasterImage

    generator = torch.Generator().manual_seed(0)
    raw = {
        key: torch.rand(2, len(bands), 3, 4, 5, generator=generator) * top
        for key, (bands, top) in RANGES.items()
    }
    raw["srtm"] = torch.rand(2, 2, 1, 4, 5, generator=generator).expand(-1, -1, 3, -1, -1) * 500
    days = [[(2023, 59), (2024, 60), (2024, 61)], [(2023, 60), (2023, 365), (2024, 366)]]
    locations = torch.tensor([[10.0, 50.0], [-70.0, -33.0]])
    inputs: list[dict[str, Any]] = []
    for i in range(2):
        inputs.append({k: rslearn_image(v[i], days[i]) for k, v in raw.items()})
        if not dated:
            inputs[i] = {k: RasterImage(v[i]) for k, v in raw.items()}
        if located:
            inputs[i]["latlon"] = locations[i].flip(0).reshape(2, 1, 1, 1).expand(-1, 1, 4, 5)
    theirs: Any = Presto(pretrained_path=str(weights.parent)).eval()
    if located:
        # the wrapper expects locations as `(C, H, W)`
        inputs = [{**x, "latlon": _Image(x["latlon"][:, 0])} for x in inputs]
    ours = make(
        [*S2, "VV", "VH", *WEATHER, *TERRAIN],
        weights=weights,
        timesteps=3,
        metadata=["time"] * dated + ["location"] * located,
    )
    known = ours.normalization
    assert known is not None
    offset, scale = (torch.tensor(v).reshape(1, -1, 1, 1, 1) for v in (known.offset, known.scale))
    images = (torch.cat([raw[key] for key in ("s2", "s1", "era5", "srtm")], 1) - offset) / scale
    with torch.no_grad():
        expected = theirs(ModelContext(inputs=inputs, metadatas=[])).feature_maps[0]
        result = ours(images, time=torch.tensor(days).float(), location=locations).maps
    assert len(result) == 2
    torch.testing.assert_close(result[-1], expected, rtol=1e-5, atol=1e-5)


class _Image:
    """The attribute of an image that rslearn's wrapper reads."""

    def __init__(self, image: Tensor) -> None:
        self.image = image


def test_chunks_do_not_change_maps_and_gradients(
    make: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = make(timesteps=2, metadata=["time", "location"])
    images = noise(2, 4, 2, 7, 5)
    time = torch.tensor([[[2020.0, 10.0], [2020.0, 100.0]], [[2021.0, 200.0], [2021.0, 300.0]]])
    inputs = {"time": time, "location": torch.tensor([[0.0, 0.0], [50.0, 10.0]])}
    seen: list[int] = []
    backbone.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))

    def gradients() -> list[Tensor]:
        backbone.zero_grad(set_to_none=True)
        maps = backbone(images, **inputs).maps
        sum(m.square().mean() for m in maps).backward()  # type: ignore[union-attr]
        return [*maps, *(p.grad for p in backbone.parameters() if p.grad is not None)]

    whole = gradients()
    assert seen == [70]
    monkeypatch.setattr(presto, "CHUNK_TOKENS", 64)
    seen.clear()
    torch.testing.assert_close(gradients(), whole, rtol=1e-4, atol=1e-6)
    chunks = [16, 16, 16, 16, 6]
    assert seen[:5] == chunks
    assert sorted(seen[5:]) == sorted(chunks), "they are recomputed in the backward pass"


def test_a_patch_is_the_mean_of_its_pixels(make: MakeBackbone) -> None:
    images = noise(1, 4, 37, 50)
    backbone = make(patch_size=4)
    with torch.no_grad():
        features = backbone(images)
        assert features.image_size == (40, 52)
        assert [tap.stride for tap in backbone.taps] == [4, 4]
        assert all(m.shape == (1, 128, 10, 13) for m in features.maps)
        pooled = torch.nn.functional.avg_pool2d(images[..., :36, :48], 4)
        plain = make()(pooled).maps
    torch.testing.assert_close([m[..., :9, :12] for m in features.maps], list(plain))


def test_taps_are_blocks(make: MakeBackbone) -> None:
    backbone = make()
    modules = dict(backbone.model.named_modules())
    assert [modules[tap.name] for tap in backbone.taps] == backbone.blocks
    with torch.no_grad():
        maps = backbone(noise(1, 4, 5, 3)).maps
        (second,) = backbone(noise(1, 4, 5, 3), taps=[1]).maps
    assert [m.shape for m in maps] == [(1, 128, 5, 3)] * 2
    torch.testing.assert_close(second, maps[1], rtol=0, atol=0)


def test_bands_can_have_any_order(make: MakeBackbone) -> None:
    bands, order = ["red", "B02", "B08", "VH", "slope"], [4, 2, 0, 3, 1]
    images = noise(1, 5, 2, 3, 3)
    one, two = make(bands, timesteps=2), make([bands[i] for i in order], timesteps=2)
    with torch.no_grad():
        torch.testing.assert_close(one(images).maps, two(images[:, order]).maps, rtol=0, atol=0)
    assert any("S2_RGB: B03 missing" in note for note in one.notes)


@pytest.mark.parametrize("metadata", [[], ["time", "location"]])
def test_every_method_trains_only_its_parameters(
    make: MakeBackbone, try_every_method: Callable[..., set[str]], metadata: list[str]
) -> None:
    backbone = make(timesteps=2, metadata=metadata)
    assert try_every_method(backbone, 6, 4) == NEED_SPATIAL_TOKENS


def test_weights_are_read_from_the_published_file_or_the_encoder_only(
    weights: Path, make: MakeBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(weights=weights)
    assert not whole.random_weights
    assert whole.licence == "unknown: given as a file"
    assert whole.fingerprint != make().fingerprint == make().fingerprint
    state = torch.load(weights, weights_only=True)
    alone = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    torch.save(alone, tmp_path / "encoder.pt")
    assert make(weights=tmp_path / "encoder.pt").fingerprint == whole.fingerprint
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with raises("weights-mismatch", mentions=["other.pt", "rslearn/presto"]):
        make(weights=tmp_path / "other.pt")

    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda repository, file: str(weights.parent / file)
    )
    fetched = make(pretrained=True)
    assert fetched.source == "hub: nasaharvest/presto/default_model.pt"
    assert fetched.fingerprint == whole.fingerprint


def test_the_normalisation_matches_rslearn() -> None:
    from rslearn.models.presto.presto import INPUT_PRESTO_BANDS
    from rslearn.models.presto.single_file_presto import PRESTO_ADD_BY, PRESTO_DIV_BY

    names = ["VV", "VH", *INPUT_PRESTO_BANDS[2:-1]]
    assert names == list(presto.SCALES) == list(presto.MODELS["presto"].bands)
    offsets, scales = zip(*presto.SCALES.values(), strict=True)
    torch.testing.assert_close(torch.tensor(offsets), -PRESTO_ADD_BY[:-1])
    torch.testing.assert_close(torch.tensor(scales), PRESTO_DIV_BY[:-1])


@pytest.mark.parametrize(
    ("options", "code", "key", "mentions"),
    [
        ({"bands": ["B02", "B10"]}, "band-unknown", "bands", ["B10"]),
        ({"bands": ["B02", "blue"]}, "band-duplicate", "bands", ["B02, blue"]),
        ({"timesteps": 25}, "backbone-option", "timesteps", ["25", "24"]),
        ({"timesteps": 2, "combine": "max"}, "backbone-option", "combine", ["max"]),
        ({"patch_size": 0}, "recipe-invalid", "patch_size", ["0"]),
        ({"gsd": 10.0}, "backbone-option", "gsd", ["10"]),
    ],
)
def test_unsupported_options_are_rejected(
    make: MakeBackbone, options: dict[str, Any], code: str, key: str, mentions: list[str]
) -> None:
    with raises(code, key=f"backbone.{key}", mentions=mentions):
        make(**options)
