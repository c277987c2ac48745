"""What is made of a backbone's taps: a reader is handed each as soon as it is there.

So a feature map need not outlive its use. Methods that change the backbone read the taps as they
are (`SelectedFeatures`); side networks make their own stream of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.types import Tap

Part = Literal["feature", "before", "attention", "mlp"]
"""What a reader may read of a tap: its map, and what is in `BlockActivations`."""


@dataclass(frozen=True)
class BlockActivations:
    """What happened in one block, as maps `(B, C, h, w)` (see `backbones/blocks.py`).

    Attributes:
        before: the stream that the block got; finer than the tap, and of other width, where the
            block itself goes to the next stage (in a ResNet).
        attention, mlp: what each added to the stream. A block with an MLP alone adds all of it
            by the MLP; both are None in a block without either.
    """

    before: Tensor
    attention: Tensor | None
    mlp: Tensor | None


class Reader(nn.Module):
    """What is made of a backbone's taps.

    Attributes:
        out_indices: indices of the taps it reads, ascending.
        internals_at: indices of those of whose blocks it wants the inside, too.
        taps: what it hands on, fine to coarse (or, from a plain ViT, all of one stride).
        samples: it is to see that many images before training, by `calibrate`.
    """

    out_indices: tuple[int, ...]
    internals_at: tuple[int, ...] = ()
    taps: tuple[Tap, ...]
    samples: int = 0

    def start(self, images: Tensor) -> Any:
        """The state before the first tap, from the padded images `(B, C, H, W)`."""
        return None

    def required_inputs(self, index: int) -> tuple[Part, ...]:
        """What `step` reads of tap `index`: no more of it is kept in a cache of features."""
        if index in self.internals_at:
            return ("feature", "before", "attention", "mlp")
        return ("feature",)

    def compress(self, index: int, feature: Tensor) -> Tensor:
        """What `step` gets in place of tap `index`: a function of the tap that never trains."""
        return feature

    def reduction(self) -> nn.Module | None:
        """What `reduced` computes with, where it was fitted to data."""
        return None

    def shared_layers(self) -> list[nn.Module]:
        """Layers of the backbone that it runs itself."""
        return []

    def forward(
        self, state: Any, index: int, feature: Tensor, inside: BlockActivations | None = None
    ) -> Any:
        """As `step`: called, so that hooks see what is the reader's."""
        return self.step(state, index, feature, inside)

    @abstractmethod
    def step(
        self, state: Any, index: int, feature: Tensor, inside: BlockActivations | None = None
    ) -> Any:
        """Take tap `index`, `(B, C, h, w)`, and the block's inside. Returns the new state.

        From a cache, what `reads` does not name is empty.
        """

    @abstractmethod
    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """The maps to hand on, one for each of `taps`."""

    def calibrate(self, features: Mapping[int, Tensor]) -> None:
        """Fit what is fitted to data, from the taps of some images."""


class SelectedFeatures(Reader):
    """Reads chosen taps as they are."""

    def __init__(self, backbone: Backbone, wanted: Sequence[int] | None = None) -> None:
        """`wanted` are indices of taps; by default those of `level_indices`."""
        super().__init__()
        self.out_indices = tuple(level_indices(backbone) if wanted is None else wanted)
        self.taps = tuple(backbone.taps[i] for i in self.out_indices)

    def step(
        self, state: Any, index: int, feature: Tensor, inside: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`."""
        return [*(state or []), feature]

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        return tuple(state)


def level_indices(backbone: Backbone, count: int = 4) -> list[int]:
    """The taps that stand for a backbone in a pyramid.

    Hierarchical: the last block of each stage. Plain ViT: `count` blocks at even distances, the
    last one among them.
    """
    if not backbone.is_columnar:
        return [stage[-1] for stage in backbone.stages]
    depth = len(backbone.taps)
    count = min(count, depth)
    return [round((i + 1) * depth / count) - 1 for i in range(count)]
