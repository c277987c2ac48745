"""One training step on geospatial models: only the parameters of the method change.

The models have the published width but fewer blocks. TerraTorch 1.2.11 freezes LoRA's own layers
together with the backbone, and LoRA on Satlas' Swin fails there, so training would change nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import geotune

MODELS: dict[str, tuple[str, ...]] = {
    "terratorch/prithvi_eo_v2_300": ("B02", "B03", "B04", "B8A", "B11", "B12"),
    "terratorch/clay_v1_base": ("B02", "B03", "B04", "B08", "B11", "B12"),
    "terratorch/terramind_v1_base": ("B02", "B03", "B04", "B08", "B11", "B12"),
    "terratorch/ssl4eos12_resnet50_sentinel2_all_decur": ("B02", "B03", "B04", "B08", "B11"),
    "torchgeo/dofa_base_patch16_224": ("B02", "B03", "B04", "B08"),
    "torchgeo/swin_v2_b_sentinel2_si_ms_satlas": ("B02", "B03", "B04", "B08"),
    "rslearn/galileo_nano": ("B02", "B03", "B04", "B08", "B11"),
}
DEPTH = 4


@pytest.fixture
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the number of blocks of the large models."""
    from geotune.backbones.torchgeo import dofa, swin

    for shapes, name, key in (
        (dofa.SHAPES, "dofa_base_patch16_224", "depth"),
        (swin.SHAPES, "swin_v2_b", "third"),
    ):
        monkeypatch.setitem(shapes, name, {**shapes[name], key: DEPTH})
    try:
        from terratorch.models.backbones import prithvi_vit
        from terratorch.models.backbones.terramind.model import terramind_register
    except ImportError:
        return
    from geotune.backbones.terratorch import clay

    cfgs = prithvi_vit.prithvi_cfgs
    for shapes, name in ((clay.SHAPES, "clay_v1_base"), (cfgs, "prithvi_eo_v2_300")):
        monkeypatch.setitem(shapes, name, {**shapes[name], "depth": DEPTH})
    build = terramind_register.build_terrammind_vit

    def build_with_few_blocks(**options: Any) -> Any:
        return build(**{**options, "encoder_depth": DEPTH})

    monkeypatch.setattr(terramind_register, "build_terrammind_vit", build_with_few_blocks)


@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["Full", "Frozen", "Lora", "Mona", "Est"])
def test_a_step_changes_only_the_methods_parameters(name: str, kind: str) -> None:
    pytest.importorskip(name.partition("/")[0])
    backbone = geotune.backbone(name, bands=MODELS[name], pretrained=False)
    encoder: Any = geotune.attach(backbone, getattr(geotune, kind)()).train()
    trained = set(encoder.trainable_names())
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    statistics = {n: b.clone() for n, b in encoder.backbone.named_buffers()}

    torch.manual_seed(0)
    maps = encoder(torch.randn(2, len(MODELS[name]), 40, 48)).maps
    torch.stack([(m * torch.randn_like(m)).mean() for m in maps]).sum().backward()
    assert {n for n, p in encoder.named_parameters() if p.grad is not None} == trained
    torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=1.0).step()

    changed = {n for n, p in encoder.named_parameters() if not torch.equal(p, before[n])}
    assert changed <= trained, "a frozen parameter changed"
    assert bool(changed) == bool(trained)
    in_backbone = {n for n in changed if n.startswith("backbone.")}
    if not encoder.backbone_frozen:
        assert in_backbone, "the backbone did not change"
    else:
        assert not in_backbone
        for buffer, value in encoder.backbone.named_buffers():
            assert torch.equal(value, statistics[buffer]), buffer
