"""The tuning methods that can be asked for by name, and where each is.

A method is one file in `methods/` and one line here: recipes, `geotune list methods`, the Python
interface and the contract tests all read this. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

METHODS: dict[str, str] = {
    "full": "geotune.methods.full:Full",
    "frozen": "geotune.methods.frozen:Frozen",
    "bitfit": "geotune.methods.bitfit:BitFit",
    "norm": "geotune.methods.norm_tuning:Norm",
    "partial": "geotune.methods.partial:Partial",
    "lora": "geotune.methods.lora:Lora",
    "peft": "geotune.methods.hf_peft:Peft",
    "vpt": "geotune.methods.vpt:Vpt",
    "adapter": "geotune.methods.adapter:Adapter",
    "adaptformer": "geotune.methods.adaptformer:AdaptFormer",
    "lorand": "geotune.methods.lorand:LoRand",
    "mona": "geotune.methods.mona:Mona",
    "vit_adapter": "geotune.methods.vit_adapter:VitAdapter",
    "sidetune": "geotune.methods.sidetune:SideTune",
    "lst": "geotune.methods.lst:Lst",
    "e3va": "geotune.methods.e3va:E3va",
    "dtl": "geotune.methods.dtl:Dtl",
    "est": "geotune.methods.est:Est",
}


def find(place: str) -> Any:
    """What stands at `module:name`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
