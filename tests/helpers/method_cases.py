"""Every tuning method, with options for small backbones, and its contract."""

from __future__ import annotations

from dataclasses import dataclass, field

from geotune import (
    Adapter,
    AdaptFormer,
    Aurora,
    BitFit,
    Dtl,
    E3va,
    EarthAdapter,
    Est,
    Frozen,
    Full,
    Lora,
    LoRand,
    Losa,
    Lst,
    Molora,
    Mona,
    Mpo,
    Norm,
    Partial,
    Peft,
    Rein,
    Sherl,
    SideTune,
    Slr,
    Ssb,
    Ssl,
    Unipt,
    VitAdapter,
    Vpt,
)
from geotune.methods.core.base import Method


@dataclass(frozen=True)
class Case:
    """A method with options for the small backbones, and its contract.

    Attributes:
        backbone_frozen: nothing in or before the backbone trains.
        starts_at_frozen: its initial maps equal those of `frozen`.
        warmup_steps: steps until every trainable parameter has a nonzero gradient: one for each
            zero-initialised layer that it passes.
        trainable_pattern: matches the name of every trainable parameter inside the backbone.
        trains_outside_only: nothing inside the backbone trains, though gradients cross it.
        mergeable: it can be folded into the backbone's own weights.
        unsupported: the families of backbones that raise an error, with its recipe key.
    """

    method: Method
    backbone_frozen: bool = False
    starts_at_frozen: bool = False
    warmup_steps: int = 1
    trainable_pattern: str = r"\.part\."
    trains_outside_only: bool = False
    mergeable: bool = False
    unsupported: dict[str, str] = field(default_factory=dict)


HIERARCHICAL = dict.fromkeys(("swin", "swinv2", "convnext", "resnet"), "method.kind")

METHODS: dict[str, Case] = {
    "full": Case(Full(), starts_at_frozen=True, trainable_pattern=""),
    "frozen": Case(Frozen(), backbone_frozen=True, starts_at_frozen=True),
    "bitfit": Case(BitFit(), starts_at_frozen=True, trainable_pattern="bias$"),
    "norm": Case(
        Norm(),
        starts_at_frozen=True,
        trainable_pattern=r"norm|bn|\.downsample\.|stem\.1|conv1\.[14]",
    ),
    "partial": Case(Partial(), starts_at_frozen=True, trainable_pattern=r"blocks\.|layer4"),
    "lora": Case(
        Lora(rank=2, alpha=4),
        starts_at_frozen=True,
        trainable_pattern=r"\.lora_[AB]\.",
        mergeable=True,
    ),
    "peft-dora": Case(
        Peft(tuner="dora", rank=2),
        starts_at_frozen=True,
        trainable_pattern=r"\.lora_",
        mergeable=True,
    ),
    "peft-ia3": Case(
        Peft(tuner="ia3"), starts_at_frozen=True, trainable_pattern=r"\.ia3_l\.", mergeable=True
    ),
    "peft-vera": Case(
        Peft(tuner="vera", rank=32),
        starts_at_frozen=True,
        trainable_pattern=r"\.vera_lambda_[bd]\.",
        mergeable=True,
        unsupported={"resnet": "method.targets"},
    ),
    "peft-oft": Case(
        Peft(tuner="oft"),
        starts_at_frozen=True,
        trainable_pattern=r"\.oft_R\.",
        mergeable=True,
        unsupported={"resnet": "method.targets", "convnext": "method.targets"},
    ),
    "ssl": Case(Ssl(), starts_at_frozen=True, mergeable=True),
    "ssb": Case(Ssb(), starts_at_frozen=True, mergeable=True),
    "slr": Case(Slr(rank=2), starts_at_frozen=True, mergeable=True),
    "molora": Case(
        Molora(experts=2, rank=2), starts_at_frozen=True, unsupported={"resnet": "method.targets"}
    ),
    "aurora": Case(
        Aurora(rank=4, dropout=0),
        starts_at_frozen=True,
        mergeable=True,
        unsupported={"resnet": "method.targets"},
    ),
    "mpo": Case(Mpo(), mergeable=True, unsupported={"resnet": "method.targets"}),
    "vpt": Case(Vpt(num_prompts=3), unsupported=HIERARCHICAL),
    "vpt-shallow": Case(Vpt(num_prompts=3, depth="shallow"), unsupported=HIERARCHICAL),
    "adapter": Case(Adapter(bottleneck_dim=4), starts_at_frozen=True),
    "adaptformer": Case(
        AdaptFormer(bottleneck_dim=4), starts_at_frozen=True, unsupported={"resnet": "method.kind"}
    ),
    "lorand": Case(LoRand(bottleneck_dim=4, rank=2, branches=2), starts_at_frozen=True),
    "mona": Case(Mona(bottleneck_dim=4, dropout=0), starts_at_frozen=True),
    "rein": Case(Rein(num_tokens=3, rank=2)),
    "earth_adapter": Case(EarthAdapter(bottleneck_dim=8), starts_at_frozen=True),
    "vit_adapter": Case(
        VitAdapter(conv_inplane=4),
        trains_outside_only=True,
        warmup_steps=2,
        unsupported=HIERARCHICAL,
    ),
    "vit_adapter-whole": Case(
        VitAdapter(conv_inplane=4, train_backbone=True),
        warmup_steps=2,
        trainable_pattern="",
        unsupported=HIERARCHICAL,
    ),
    "sidetune": Case(SideTune(width=4), backbone_frozen=True),
    "lst": Case(Lst(reduction=4), backbone_frozen=True, starts_at_frozen=True),
    "lst-pruned": Case(
        Lst(reduction=4, init="pruned"),
        backbone_frozen=True,
        starts_at_frozen=True,
        unsupported=dict.fromkeys(("convnext", "resnet"), "method.init"),
    ),
    "e3va": Case(E3va(rank=4), backbone_frozen=True, unsupported={"resnet": "method.kind"}),
    "dtl": Case(Dtl(), backbone_frozen=True, starts_at_frozen=True),
    "dtl-feedback": Case(Dtl(feedback_from=2), starts_at_frozen=True),
    "unipt": Case(Unipt(reduction=4), backbone_frozen=True, starts_at_frozen=True),
    "sherl": Case(Sherl(reduction=2), unsupported=HIERARCHICAL),
    "losa": Case(Losa(rank=2), backbone_frozen=True, starts_at_frozen=True),
    "est-side": Case(Est(output="side", reduction=4, min_width=8), backbone_frozen=True),
    "est-sum": Case(
        Est(output="sum", reduction=4, min_width=8),
        backbone_frozen=True,
        starts_at_frozen=True,
        warmup_steps=2,
    ),
    "est-spatial": Case(Est(fusion="spatial", reduction=4, min_width=8), backbone_frozen=True),
    "est-inside": Case(
        Est(use_block_internals=True, gate="static", adapters=(4,), reduction=4, min_width=8),
        backbone_frozen=True,
        unsupported={"resnet": "method.use_block_internals"},
    ),
    "est-pca": Case(Est(projection_init="pca", reduction=4, min_width=8), backbone_frozen=True),
    "est-pca_fixed": Case(
        Est(projection_init="pca_fixed", reduction=4, min_width=8), backbone_frozen=True
    ),
}
"""Every registered method, by its name, or its name and an option."""

PLAIN_ONLY = {"vpt", "vpt-shallow", "vit_adapter", "vit_adapter-whole", "sherl"}
"""Methods for plain ViTs only."""
NEED_AN_MLP = {
    "adaptformer",
    "e3va",
    "est-inside",
    "peft-oft",
    "peft-vera",
    "molora",
    "aurora",
    "mpo",
    "lst-pruned",
}
"""Methods that need an MLP in the blocks, which a ResNet lacks."""
NEED_SPATIAL_TOKENS = {
    "mona",
    "rein",
    "earth_adapter",
    "sherl",
    "vit_adapter",
    "vit_adapter-whole",
    "e3va",
    "dtl",
    "dtl-feedback",
    "est-inside",
}
NEED_BLOCKS = (
    PLAIN_ONLY
    | NEED_SPATIAL_TOKENS
    | {
        "partial",
        "adapter",
        "adaptformer",
        "lorand",
        "aurora",
        "lst-pruned",
    }
)
