"""What `geotune list` shows. Imports nothing heavy, so it repeats names that catalogues hold;
a test keeps the two together."""

from __future__ import annotations

from typing import Literal, get_args

from geotune.recipe import Data, Decoder, Method

METHODS = {
    "full": "every parameter trains",
    "frozen": "only the decoder (and the stem) train; with the linear decoder: linear probing",
    "lora": "low-rank updates inside the backbone (HF peft)",
    "est": "efficient side-tuning: a small network beside the frozen backbone",
}
DECODERS = {
    "linear": "one 1x1 convolution",
    "fcn": "a few convolutions at the finest resolution",
    "unet": "from coarse to fine with skips",
    "upernet": "pyramid pooling and a feature pyramid",
}
DATASETS = {
    "scenes": "whole scenes with raster or vector labels, cut into windows",
    "chips": "a folder of images and a folder of masks",
    "synthetic": "scenes that geotune makes itself",
}
GALILEO = ("nano", "tiny", "base")

Row = dict[str, str]


def listing(what: Literal["backbones", "methods", "decoders", "datasets"]) -> list[Row]:
    """Rows with the same keys, `name` first."""
    if what == "backbones":
        return _backbones()
    titles = {"methods": METHODS, "decoders": DECODERS, "datasets": DATASETS}[what]
    sections = {"methods": Method, "decoders": Decoder, "datasets": Data}[what]
    return [
        {"name": kind, "is": titles[kind], "options": ", ".join(options)}
        for kind, options in _kinds(sections).items()
    ]


def _kinds(union: object) -> dict[str, list[str]]:
    """The kinds of a recipe's section and the keys each of them has."""
    models = get_args(get_args(union)[0])
    return {
        model.model_fields["kind"].default: [n for n in model.model_fields if n != "kind"]
        for model in models
    }


def _backbones() -> list[Row]:
    import timm

    rows = [
        {"name": f"rslearn/galileo_{size}", "needs": "geotune[rslearn], weights from a folder"}
        for size in GALILEO
    ]
    return rows + [{"name": f"timm/{name}", "needs": ""} for name in timm.list_models()]
