"""Baselines, which are part of every comparison unless they are switched off.

In arXiv 2504.17397 a UNet with random weights outperforms every foundation model on the test split
of Sen1Floods11, so a comparison needs one to show the benefit of pretraining.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from geotune.bench.suite import Changes
from geotune.config import Recipe

SCRATCH = "timm/resnet18"
"""The encoder of the UNet from scratch."""


@dataclass(frozen=True)
class Baseline:
    """A baseline made from a recipe.

    Attributes:
        changes: the recipe keys that it sets; the stem and the bands are kept.
        unsupported: why a recipe cannot have it; None if it can.
    """

    changes: Callable[[Recipe], Changes]
    unsupported: Callable[[Recipe], str | None]


def _scratch(recipe: Recipe) -> Changes:
    return {
        "backbone": {"name": SCRATCH, "pretrained": False, "bands": recipe.backbone.bands},
        "method": {"kind": "full", "stem_width": recipe.method.stem_width},
        **({} if recipe.decoder.kind == "unet" else {"decoder": {"kind": "unet"}}),
        # Without pretrained weights, a lower learning rate or a feature cache makes no sense.
        "train.backbone_lr": recipe.train.lr,
        "train.cache": "none",
        "train.compile": False,
    }


def _scratch_unsupported(recipe: Recipe) -> str | None:
    if recipe.task.level != "pixel":
        return (
            f"unet_from_scratch is omitted: a UNet predicts per pixel, but task.kind "
            f"{recipe.task.kind} predicts per {recipe.task.level}"
        )
    if isinstance(recipe.backbone.bands, dict) or recipe.backbone.timesteps > 1:
        return "unet_from_scratch is omitted: it supports one sensor and one date only"
    return None


def _probe(kind: str) -> Baseline:
    """A classifier that is fitted to the features of the frozen backbone."""

    def changes(recipe: Recipe) -> Changes:
        pooled = "pooled_" if recipe.task.level == "image" else ""
        return {"method": {"kind": "frozen", "stem_width": 0}, "decoder": {"kind": pooled + kind}}

    def unsupported(recipe: Recipe) -> str | None:
        multilabel = getattr(recipe.task, "multilabel", False)
        if recipe.task.kind in ("segment", "classify") and not multilabel:
            return None
        several = " with several labels of an image" if multilabel else ""
        return f"{kind} is omitted: it predicts classes, not task.kind {recipe.task.kind}{several}"

    return Baseline(changes, unsupported)


BASELINES: dict[str, Baseline] = {
    "unet_from_scratch": Baseline(_scratch, _scratch_unsupported),
    "frozen": Baseline(
        lambda recipe: {"method": {"kind": "frozen", "stem_width": recipe.method.stem_width}},
        lambda recipe: None,
    ),
    "knn": _probe("knn"),
    "logistic": _probe("logistic"),
}
"""The baselines by the key that switches them off."""
