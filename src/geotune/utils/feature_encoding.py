"""Compact encoding of cached features: float32, bfloat16, or int8 with a scale per channel.

    x = s q        q: int8 in -127 ... 127;  s = max |channel| / 127

Scales are per channel, not per position: transformers have a few channels that are a hundred times
larger than the rest at every position, which would leave the others no precision. Channels are
last, the native layout of transformers and the fast one for convolutions on CPUs and tensor cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

CachePrecision = Literal["bf16", "fp32", "int8"]


def encode_features(features: Mapping[str, Tensor], precision: CachePrecision) -> dict[str, Tensor]:
    """Encode maps `(B, C, h, w)` by name as `(B, h, w, C)` on the CPU.

    int8 maps come with `<name>.scale`, `(B, 1, 1, C)`.
    """
    encoded: dict[str, Tensor] = {}
    for name, maps in features.items():
        if precision == "int8":
            scale = maps.abs().amax((-2, -1), keepdim=True).float().clamp(min=1e-30) / 127
            encoded[f"{name}.scale"] = scale
            encoded[name] = (maps / scale).round().to(torch.int8)
        else:
            encoded[name] = maps.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    return {name: tensor.permute(0, 2, 3, 1).contiguous().cpu() for name, tensor in encoded.items()}


class DecodedFeatures(Mapping[str, Tensor]):
    """Encoded maps, each decoded when it is accessed, so that one at a time is in full precision.

    The decoded dtype is that of the active autocast, else float32.
    """

    def __init__(self, encoded: Mapping[str, Tensor]) -> None:
        self._encoded = encoded

    def __getitem__(self, name: str) -> Tensor:
        maps = self._encoded[name].permute(0, 3, 1, 2)
        if maps.dtype == torch.float32:
            return maps
        device = maps.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else torch.float32
        scale = self._encoded.get(f"{name}.scale")
        if scale is None:
            return maps.to(dtype)
        return maps.to(dtype) * scale.permute(0, 3, 1, 2).to(dtype)

    def __contains__(self, name: object) -> bool:
        return name in self._encoded

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._encoded if not name.endswith(".scale"))

    def __len__(self) -> int:
        return sum(1 for _ in self)
