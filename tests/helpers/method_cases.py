"""Every tuning method with options that suit small backbones, and what it promises."""

from __future__ import annotations

from dataclasses import dataclass, field

from geotune import (
    Adapter,
    AdaptFormer,
    BitFit,
    Dtl,
    E3va,
    Est,
    Frozen,
    Full,
    Lora,
    LoRand,
    Lst,
    Mona,
    Norm,
    Partial,
    Peft,
    SideTune,
    VitAdapter,
    Vpt,
)
from geotune.methods.core.base import Method


@dataclass(frozen=True)
class Case:
    """A method with options that suit the small backbones, and what it promises.

    Attributes:
        constant: nothing in or before the backbone trains.
        starts_at_frozen: before the first step its maps are those of `frozen`.
        wakes: steps until a gradient reaches everything: what lies behind one layer that starts
            at zero gets its gradient after one step, behind two after two.
        trains: what every name of a parameter that trains inside the backbone must match.
        beside: nothing trains inside the backbone, though gradients may cross it.
        merges: it can be folded into the backbone's own weights.
        refused: classes of backbones that it does not fit, with a pattern of the reason.
    """

    method: Method
    constant: bool = False
    starts_at_frozen: bool = False
    wakes: int = 1
    trains: str = r"\.part\."
    beside: bool = False
    merges: bool = False
    refused: dict[str, str] = field(default_factory=dict)


HIERARCHICAL = {name: "it is for plain ViTs" for name in ("swin", "swinv2", "convnext", "resnet")}

METHODS: dict[str, Case] = {
    "full": Case(Full(), starts_at_frozen=True, trains=""),
    "frozen": Case(Frozen(), constant=True, starts_at_frozen=True),
    "bitfit": Case(BitFit(), starts_at_frozen=True, trains="bias$"),
    "norm": Case(
        Norm(), starts_at_frozen=True, trains=r"norm|bn|\.downsample\.|stem\.1|conv1\.[14]"
    ),
    "partial": Case(Partial(), starts_at_frozen=True, trains=r"blocks\.|layer4"),
    "lora": Case(
        Lora(rank=2, alpha=4), starts_at_frozen=True, trains=r"\.lora_[AB]\.", merges=True
    ),
    "peft-dora": Case(
        Peft(tuner="dora", rank=2), starts_at_frozen=True, trains=r"\.lora_", merges=True
    ),
    "peft-ia3": Case(Peft(tuner="ia3"), starts_at_frozen=True, trains=r"\.ia3_l\.", merges=True),
    "peft-vera": Case(
        Peft(tuner="vera", rank=32),
        starts_at_frozen=True,
        trains=r"\.vera_lambda_[bd]\.",
        merges=True,
        refused={"resnet": "no linear layer"},
    ),
    "peft-oft": Case(
        Peft(tuner="oft"),
        starts_at_frozen=True,
        trains=r"\.oft_R\.",
        merges=True,
        refused={"resnet": "no linear layer", "convnext": "its layers cannot compute"},
    ),
    "vpt": Case(Vpt(num_prompts=3), refused=HIERARCHICAL),
    "vpt-shallow": Case(Vpt(num_prompts=3, depth="shallow"), refused=HIERARCHICAL),
    "adapter": Case(Adapter(bottleneck_dim=4), starts_at_frozen=True),
    "adaptformer": Case(
        AdaptFormer(bottleneck_dim=4), starts_at_frozen=True, refused={"resnet": "have no MLP"}
    ),
    "lorand": Case(LoRand(bottleneck_dim=4, rank=2, branches=2), starts_at_frozen=True),
    "mona": Case(Mona(bottleneck_dim=4, dropout=0), starts_at_frozen=True),
    "vit_adapter": Case(VitAdapter(conv_inplane=4), beside=True, wakes=2, refused=HIERARCHICAL),
    "vit_adapter-whole": Case(
        VitAdapter(conv_inplane=4, train_backbone=True), wakes=2, trains="", refused=HIERARCHICAL
    ),
    "sidetune": Case(SideTune(width=4), constant=True),
    "lst": Case(Lst(reduction=4), constant=True, starts_at_frozen=True),
    "e3va": Case(E3va(rank=4), constant=True, refused={"resnet": "neither attention nor an MLP"}),
    "dtl": Case(Dtl(), constant=True, starts_at_frozen=True),
    "dtl-feedback": Case(Dtl(feedback_from=2), starts_at_frozen=True),
    "est-side": Case(Est(output="side", reduction=4, min_width=8), constant=True),
    "est-sum": Case(
        Est(output="sum", reduction=4, min_width=8), constant=True, starts_at_frozen=True, wakes=2
    ),
    "est-inside": Case(
        Est(use_block_internals=True, gate="static", adapters=(4,), reduction=4, min_width=8),
        constant=True,
        refused={"resnet": "shows no attention and MLP"},
    ),
    "est-pca": Case(Est(projection_init="pca", reduction=4, min_width=8), constant=True),
    "est-pca_fixed": Case(
        Est(projection_init="pca_fixed", reduction=4, min_width=8), constant=True
    ),
}
"""Every method of the catalogue, under its name or its name and an option."""

PLAIN_ONLY = {"vpt", "vpt-shallow", "vit_adapter", "vit_adapter-whole"}
"""What is for plain ViTs."""
NEED_AN_MLP = {"adaptformer", "e3va", "est-inside", "peft-oft", "peft-vera"}
"""What does not fit a ResNet beside these: its blocks have convolutions alone."""
NEED_PLACES = {
    "mona",
    "vit_adapter",
    "vit_adapter-whole",
    "e3va",
    "dtl",
    "dtl-feedback",
    "est-inside",
}
NEED_BLOCKS = PLAIN_ONLY | NEED_PLACES | {"partial", "adapter", "adaptformer", "lorand"}
