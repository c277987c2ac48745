"""What every comparison is held against, unless it is switched off by name.

In arXiv 2504.17397 a UNet with random weights beats every foundation model on the test part of
Sen1Floods11: a comparison without one says little of what pretraining is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from geotune.bench.suite import Changes
from geotune.config import Recipe

SCRATCH = "timm/resnet18"
"""The encoder of the UNet that is trained from scratch."""


@dataclass(frozen=True)
class Baseline:
    """One of them.

    Attributes:
        changes: what it changes in a recipe, whose stem and bands it keeps.
        refuses: why it cannot be made of a recipe; None where it can.
    """

    changes: Callable[[Recipe], Changes]
    refuses: Callable[[Recipe], str | None]


def _scratch(recipe: Recipe) -> Changes:
    return {
        "backbone": {"name": SCRATCH, "pretrained": False, "bands": recipe.backbone.bands},
        "method": {"kind": "full", "stem": recipe.method.stem_width},
        **({} if recipe.decoder.kind == "unet" else {"decoder": {"kind": "unet"}}),
        # Nothing is pretrained that a smaller rate would protect, or that could be kept.
        "train.backbone_lr": recipe.train.lr,
        "train.cache": "none",
        "train.compile": False,
    }


def _refuses_scratch(recipe: Recipe) -> str | None:
    if recipe.task.level != "pixel":
        return (
            f"unet_from_scratch is left out: a UNet gives an answer for each pixel, and task.kind "
            f"{recipe.task.kind} asks for one for each {recipe.task.level}"
        )
    if isinstance(recipe.backbone.bands, dict) or recipe.backbone.timesteps > 1:
        return "unet_from_scratch is left out: it takes one image, not several sensors or dates"
    return None


BASELINES: dict[str, Baseline] = {
    "unet_from_scratch": Baseline(_scratch, _refuses_scratch),
    "frozen": Baseline(
        lambda recipe: {"method": {"kind": "frozen", "stem": recipe.method.stem_width}},
        lambda recipe: None,
    ),
}
"""By the name that switches it off."""
