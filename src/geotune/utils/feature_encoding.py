"""How features are held: in full, in bfloat16, or in int8 with a scale for each channel of a map.

    x = s q        q: int8 in -127 ... 127;  s = max |channel| / 127

Transformers have a few channels that are a hundred times as large as the rest, at all positions,
so that a scale for each position would leave the others no digits. Channels lie last, as
transformers have them and as convolutions on CPUs and tensor cores like them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

CachePrecision = Literal["bf16", "fp32", "int8"]


def encode_features(features: Mapping[str, Tensor], precision: CachePrecision) -> dict[str, Tensor]:
    """Maps `(B, C, h, w)` by name as they are kept: `(B, h, w, C)`, on the CPU.

    For int8 with `<name>.scale`, `(B, 1, 1, C)`.
    """
    kept: dict[str, Tensor] = {}
    for name, maps in features.items():
        if precision == "int8":
            scale = maps.abs().amax((-2, -1), keepdim=True).float().clamp(min=1e-30) / 127
            kept[f"{name}.scale"] = scale
            kept[name] = (maps / scale).round().to(torch.int8)
        else:
            kept[name] = maps.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    return {name: tensor.permute(0, 2, 3, 1).contiguous().cpu() for name, tensor in kept.items()}


class DecodedFeatures(Mapping[str, Tensor]):
    """Kept maps, each brought to the precision of the computation when it is asked for.

    So no more than one of them is there in full at a time.
    """

    def __init__(self, kept: Mapping[str, Tensor]) -> None:
        self._kept = kept

    def __getitem__(self, name: str) -> Tensor:
        maps = self._kept[name].permute(0, 3, 1, 2)
        if maps.dtype == torch.float32:
            return maps
        device = maps.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else torch.float32
        scale = self._kept.get(f"{name}.scale")
        if scale is None:
            return maps.to(dtype)
        return maps.to(dtype) * scale.permute(0, 3, 1, 2).to(dtype)

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._kept if not name.endswith(".scale"))

    def __len__(self) -> int:
        return sum(1 for _ in self)
