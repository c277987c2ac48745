"""One step on the geospatial models of the field at their own size: only what should train does.

TerraTorch 1.2.11 freezes LoRA's own layers together with the backbone, and LoRA on Satlas' Swin
fails there: such a training runs to its end and has changed nothing but the decoder.
"""

from __future__ import annotations

import copy
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


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_only_what_should_train_changes(name: str) -> None:
    pytest.importorskip(name.partition("/")[0])
    backbone = geotune.backbone(name, bands=MODELS[name], pretrained=False)
    for method in (geotune.Full(), geotune.Frozen(), geotune.Lora(), geotune.Mona(), geotune.Est()):
        encoder: Any = geotune.attach(copy.deepcopy(backbone), method).train()
        trained = set(encoder.trainable_names())
        before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
        statistics = {n: b.clone() for n, b in encoder.backbone.named_buffers()}

        torch.manual_seed(0)
        maps = encoder(torch.randn(2, len(MODELS[name]), 40, 48)).maps
        parameters = [p for p in encoder.parameters() if p.requires_grad]
        torch.stack([(m * torch.randn_like(m)).mean() for m in maps]).sum().backward()
        given = {n for n, p in encoder.named_parameters() if p.grad is not None}
        assert given == trained, method
        torch.optim.SGD(parameters, lr=1.0).step()

        changed = {n for n, p in encoder.named_parameters() if not torch.equal(p, before[n])}
        assert changed <= trained, f"{method} changed what is frozen"
        assert bool(changed) == bool(trained), method
        backbones_own = {n for n in changed if n.startswith("backbone.")}
        if not encoder.backbone_frozen:
            assert backbones_own, f"{method} left the backbone as it was"
        else:
            assert not backbones_own
            for buffer, value in encoder.backbone.named_buffers():
                assert torch.equal(value, statistics[buffer]), buffer
