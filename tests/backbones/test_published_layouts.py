"""Downloads of published weights, from a hub on this machine with small files of each layout."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

import geotune
from geotune.backbones.base import Backbone
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import hub_state_dict
from helpers.errors import raises
from helpers.hub_server import Hub

Build = Callable[..., Backbone]
S2 = ("B02", "B03", "B04", "B08")


def saved(state: Any) -> bytes:
    """A PyTorch file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def changed(model: torch.nn.Module) -> dict[str, Tensor]:
    """The state of a model with other numbers than its initial ones."""
    return {
        name: tensor + 0.25 if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }


def random(name: str, bands: Any) -> Backbone:
    return geotune.backbone(name, bands=bands, pretrained=False)


def timm_files() -> dict[str, bytes]:
    import timm

    model = timm.create_model("test_vit", pretrained=False)  # with its head, as published
    return {"model.safetensors": save_tensors(changed(model))}


def timm_files_without_safetensors() -> dict[str, bytes]:
    import timm

    return {"pytorch_model.bin": saved(changed(timm.create_model("test_vit", pretrained=False)))}


def galileo_files() -> dict[str, bytes]:
    from rslearn.models.galileo.single_file_galileo import Encoder

    shape = {"embedding_size": 128, "depth": 4, "num_heads": 8, "mlp_ratio": 4}
    config = {"model": {"encoder": shape}}
    return {
        "models/nano/config.json": json.dumps(config).encode(),
        "models/nano/encoder.pt": saved(changed(Encoder(**shape))),
    }


def presto_files() -> dict[str, bytes]:
    from rslearn.models.presto.single_file_presto import Presto

    return {"default_model.pt": saved(changed(Presto.construct()))}


def olmoearth_files(name: str) -> dict[str, bytes]:
    from geotune.backbones.rslearn.olmoearth import _build

    model = _build(BackboneSpec(name=name, bands=("B02",)))  # with the layers of all bands
    return {"weights.pth": saved(prefixed(changed(model), "encoder."))}


def prithvi_files() -> dict[str, bytes]:
    from terratorch.models.backbones.prithvi_vit import PrithviViT, prithvi_cfgs

    model = PrithviViT(**prithvi_cfgs["prithvi_eo_v2_tiny_tl"])
    return {"Prithvi_EO_V2_tiny_TL.pt": saved(prefixed(changed(model), "encoder."))}


def terramind_files() -> dict[str, bytes]:
    from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY

    model = TERRATORCH_BACKBONE_REGISTRY.build(
        "terramind_v1_tiny", modalities=["untok_sen2l2a@224"], pretrained=False
    )
    return {"TerraMind_v1_tiny.pt": saved(changed(model))}


LAYOUTS: dict[str, tuple[str, str, Callable[[], dict[str, bytes]]]] = {
    "timm/test_vit": ("", "timm/test_vit.r160_in1k", timm_files),
    "timm/test_vit, no safetensors": (
        "",
        "timm/test_vit.r160_in1k",
        timm_files_without_safetensors,
    ),
    "rslearn/galileo_nano": ("rslearn", "nasaharvest/galileo", galileo_files),
    "rslearn/presto": ("rslearn", "nasaharvest/presto", presto_files),
    "rslearn/olmoearth_v1_nano": (
        "olmoearth_pretrain_minimal",
        "allenai/OlmoEarth-v1-Nano",
        lambda: olmoearth_files("rslearn/olmoearth_v1_nano"),
    ),
    "rslearn/olmoearth_v1_2_nano": (
        "olmoearth_pretrain_minimal",
        "allenai/OlmoEarth-v1_2-Nano",
        lambda: olmoearth_files("rslearn/olmoearth_v1_2_nano"),
    ),
    "terratorch/prithvi_eo_v2_tiny_tl": (
        "terratorch",
        "ibm-nasa-geospatial/Prithvi-EO-2.0-tiny-TL",
        prithvi_files,
    ),
    "terratorch/terramind_v1_tiny": (
        "terratorch",
        "ibm-esa-geospatial/TerraMind-1.0-tiny",
        terramind_files,
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_backbone_is_downloaded_from_its_repository(
    hub: Hub, case: str, request: pytest.FixtureRequest
) -> None:
    """Exactly the published files are read, once, and give the weights that are in them."""
    package, repo, files_of = LAYOUTS[case]
    if package:
        pytest.importorskip(package)
    name = case.partition(",")[0]
    files = files_of()
    hub.add(repo, files)
    bands = ["red", "green", "blue"] if name.startswith("timm/") else S2[:3]
    backbone = geotune.backbone(name, bands=bands)
    assert backbone.source.startswith(f"hub: {repo}") and not backbone.random_weights
    assert backbone.fingerprint != random(name, bands).fingerprint
    assert sorted(hub.downloaded()) == sorted(files)
    again = geotune.backbone(name, bands=bands)
    assert again.fingerprint == backbone.fingerprint
    assert sorted(hub.downloaded()) == sorted(files)


def files_of_terratorch() -> list[Any]:
    """Repository and file of every Prithvi, TerraMind and Clay with published weights."""
    pytest.importorskip("terratorch")
    from terratorch.models.backbones.prithvi_vit import pretrained_weights
    from terratorch.models.backbones.terramind.model import terramind_register

    from geotune.backbones.terratorch import clay, prithvi, terramind

    named = {
        **{name: entry.get("hf_hub_filename") for name, entry in pretrained_weights.items()},
        **{
            name: entry.get("hf_hub_filename")
            for name, entry in terramind_register.pretrained_weights.items()
        },
        **clay._FILES,
    }
    models = {**prithvi.MODELS, **terramind.MODELS, **clay.MODELS}
    return [
        (name, info.weights, named[name])
        for name, info in models.items()
        if info.weights and named.get(name)
    ]


def test_every_file_of_terratorch_is_downloaded(hub: Hub) -> None:
    """The models are too large to build here; files and their folders are those of TerraTorch."""
    found = files_of_terratorch()
    assert len(found) > 8
    assert ("clay_v15_large", "made-with-clay/Clay", "v1.5/clay-v1.5.ckpt") in found
    for number, (name, repo, file) in enumerate(found):
        held = hub.repos[repo].files() if repo in hub.repos else {}
        hub.add(repo, {**held, file: saved({"state_dict": {"x": torch.tensor([number])}})})
        spec = BackboneSpec(name=f"terratorch/{name}", bands=S2)
        state, source = hub_state_dict(spec, repo, file)
        assert state["x"].tolist() == [number] and source == f"hub: {repo}/{file}"


def test_torchgeo_downloads_the_file_of_a_pinned_revision(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torchgeo")
    from geotune.backbones.torchgeo.torchgeo_provider import MODELS

    name = "torchgeo/resnet18_sentinel2_all_moco"
    url = MODELS["resnet18_sentinel2_all_moco"].weights
    _, _, _, org, repo, _, revision, file = url.split("/")
    bands = ["B02", "B03", "B04", "B08"]
    model = random(name, list(MODELS["resnet18_sentinel2_all_moco"].bands)).model
    commit = hub.add(f"{org}/{repo}", {file: saved(changed(model))})
    hub.repos[f"{org}/{repo}"].branches[revision] = commit
    download = torch.hub.download_url_to_file

    def from_this_hub(url: str, *arguments: Any, **options: Any) -> None:
        download(f"{hub.endpoint}{urlsplit(url).path}", *arguments, **options)

    monkeypatch.setattr(torch.hub, "download_url_to_file", from_this_hub)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr("geotune.backbones.weights.reachable", lambda url: True)
    backbone = geotune.backbone(name, bands=bands)
    assert backbone.source == url and set(hub.downloaded()) == {file}
    assert backbone.fingerprint != random(name, bands).fingerprint


# ---------------------------------------------------------------- errors
def test_a_repository_that_lacks_the_file(hub: Hub) -> None:
    hub.add("timm/test_vit.r160_in1k", {"README.md": b""})
    with raises("weights-unavailable", key="backbone.weights", mentions=["timm/test_vit"]):
        geotune.backbone("timm/test_vit", bands=3)


def test_a_checkpoint_of_another_model(hub: Hub) -> None:
    pytest.importorskip("rslearn")
    hub.add("nasaharvest/presto", {"default_model.pt": saved({"weight": torch.zeros(2)})})
    with raises("weights-mismatch", key="backbone.weights", mentions=["rslearn/presto"]):
        geotune.backbone("rslearn/presto", bands=S2)
