"""How a method reads the backbone's taps: one at a time, as soon as each is computed.

A tap (an entry of timm's `feature_info`, one for each block) need not be stored after it was read.
Methods that change the backbone read the taps unchanged (`SelectedFeatures`); side networks
compute a stream of their own from them.

    start(images) --> state
    step(state, i, tap i, activations i) --> state        for each i in out_indices, ascending
    finish(state) --> feature maps for the decoder
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.types import Tap

ReaderInput = Literal["feature", "before", "attention", "mlp"]
"""What `Reader.step` may use of a block: its tap, or a field of `BlockActivations`."""


@dataclass(frozen=True)
class BlockActivations:
    """Activations inside a block, as maps `(B, C, h, w)` (see `backbones/blocks.py`).

    Attributes:
        before: the block's input. Where the block itself downsamples (ResNet), it is finer than
            the tap and of another width.
        attention: what attention adds to the residual stream; None for blocks without it.
        mlp: what the MLP adds; for blocks without attention the whole change of the stream; None
            for blocks with neither.
    """

    before: Tensor
    attention: Tensor | None
    mlp: Tensor | None


class Reader(nn.Module):
    """Computes the encoder's feature maps from the backbone's taps.

    Attributes:
        out_indices: indices of the taps that it reads, ascending.
        internals_at: indices, among those, of blocks whose `BlockActivations` it also reads.
        taps: the maps that it returns, fine to coarse (all of one stride for a plain ViT).
        calibration_samples: number of images that `calibrate` needs before training.
    """

    out_indices: tuple[int, ...]
    internals_at: tuple[int, ...] = ()
    taps: tuple[Tap, ...]
    calibration_samples: int = 0

    def start(self, images: Tensor) -> Any:
        """Return the initial state for padded images `(B, C, H, W)`."""
        return None

    def use_backbone(self, backbone: Backbone) -> None:
        """Read another backbone with the same weights, which several models share."""

    def reset(self) -> None:
        """Drop what a forward pass keeps in the reader, after it failed."""

    def required_inputs(self, index: int) -> tuple[ReaderInput, ...]:
        """Return what `step` uses of block `index`; a feature cache stores nothing else."""
        if index in self.internals_at:
            return ("feature", "before", "attention", "mlp")
        return ("feature",)

    def compress(self, index: int, feature: Tensor) -> Tensor:
        """Apply a fixed function to tap `index`; `step` and the cache get the result instead."""
        return feature

    def compression_module(self) -> nn.Module | None:
        """Return the module that `compress` uses, if it was fitted to data."""
        return None

    def shared_layers(self) -> list[nn.Module]:
        """Return the backbone's layers that the reader itself calls."""
        return []

    def forward(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """Call `step`; as a module call, so that hooks attribute it to the reader."""
        return self.step(state, index, feature, activations)

    @abstractmethod
    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """Read tap `index`, `(B, C, h, w)`, and return the new state.

        With cached features, inputs that are not in `required_inputs` are empty tensors.
        """

    @abstractmethod
    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """Return the feature maps, one for each of `taps`."""

    def observe(self, index: int, feature: Tensor) -> None:
        """Take from tap `index` of some images what `calibrate` needs; the tap is not kept."""

    def calibrate(self) -> None:
        """Fit data-dependent parameters to what `observe` received."""


class SelectedFeatures(Reader):
    """Returns selected taps unchanged; by default those of `level_indices`."""

    def __init__(self, backbone: Backbone, indices: Sequence[int] | None = None) -> None:
        super().__init__()
        self.out_indices = tuple(level_indices(backbone) if indices is None else indices)
        self.taps = tuple(backbone.taps[i] for i in self.out_indices)

    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`. The state is the list of maps."""
        return [*(state or []), feature]

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        return tuple(state)


def level_indices(backbone: Backbone, count: int = 4) -> list[int]:
    """Select the taps that form a feature pyramid.

    Hierarchical backbone: the last block of each stage. Plain ViT: `count` evenly spaced blocks,
    including the last one.
    """
    if not backbone.is_plain_vit:
        return [stage[-1] for stage in backbone.stages]
    depth = len(backbone.taps)
    count = min(count, depth)
    return [round((i + 1) * depth / count) - 1 for i in range(count)]
