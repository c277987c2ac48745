"""DTL, disentangled transfer learning: a compact side network (AAAI 2024, arXiv 2312.07856).

    h_i = h_(i-1) + x_i A_i B_i                             before every block i, h_0 = 0
    x_(i+1) = block_i(x_i) + DWConv(swish(h_i))             from block M on
    y = x + DWConv(swish(h))                                at the levels before block M

A is C x r and random, B is r x C and starts at zero; swish(h) = h sigmoid(beta h), beta = 100 as in
the authors' trainings, who have r = 2, a 3x3 convolution and M = 7 of 12 for a ViT-B. The side
stream h is made of frozen features up to block M, so gradients cross only the blocks behind it.
With M at the last block they cross none, and all of the side network stands beside the backbone.

Our reading: levels before M get the feedback, too, but for the decoder alone (the paper has no
pyramid). The convolution is shared by all blocks, as in the paper, or by those of a stage, since
widths differ; it starts as the identity, which is the paper's form without it, because behind a
zeroed B a zeroed convolution would never train. Between stages h goes through a strided depthwise
convolution and a 1x1 without biases. Tokens without a place in the image are read for nothing and
get no feedback. A block that goes to the next stage itself (ResNet) is read at that stage's stride,
by average pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import DtlOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.block_hooks import capture_block_activations
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import check_trainable
from geotune.methods.core.injection import (
    Wrapped,
    check_width,
    freeze,
    inject,
    inserted,
    require_blocks,
    require_places,
    widths,
    zero_init,
)
from geotune.methods.core.reader import BlockActivations, Part, Reader, level_indices
from geotune.methods.core.side_network import as_feature, downsample, require_odd

BETA = 100.0


class Dtl(DtlOptions, Method):
    """A low-rank side stream of the blocks' inputs, fed back late or not at all."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` for an option that does not fit."""
        require_odd("kernel_size", self.kernel_size)
        require_blocks(backbone, "dtl")
        require_places(backbone, "dtl")
        check_width("rank", self.rank, backbone)
        depth = len(backbone.blocks)
        first = depth if self.feedback_from is None else self.feedback_from
        if first > depth:
            raise GeotuneError(
                f"method.feedback_from {first}: {backbone.name} has {depth} blocks; choose at most "
                f"{depth}"
            )
        freeze(backbone)
        network = CompactSideNetwork(backbone, rank=self.rank, kernel_size=self.kernel_size)
        levels = level_indices(backbone)
        reader: Reader
        if first == depth:
            reader = SideReader(backbone, network, levels)
        else:
            reader = FeedbackReader(
                backbone, levels, feed_back(backbone, network, first - 1, levels)
            )
        encoder = Encoder(backbone, reader, self, backbone_frozen=first == depth)
        return check_trainable(encoder)


class CompactSideNetwork(nn.Module):
    """What trains: a low-rank map for each block, and what brings the stream onward and back."""

    recomputable = ("feedbacks",)

    def __init__(self, backbone: Backbone, *, rank: int, kernel_size: int) -> None:
        super().__init__()
        taps, own = backbone.taps, widths(backbone)
        self.low_rank = nn.ModuleList(
            DtlLowRank(inputs, width, rank, pool)
            for (inputs, pool), width in zip(block_inputs(backbone), own, strict=True)
        )
        self.between = nn.ModuleList(
            downsample(taps[i - 1], taps[i], own[i - 1], own[i], bias=False)
            for i in range(1, len(taps))
        )
        self.stage_of = {i: at for at, stage in enumerate(backbone.stages) for i in stage}
        self.feedbacks = nn.ModuleList(
            Feedback(own[stage[0]], kernel_size) for stage in backbone.stages
        )

    def take(self, index: int, x: Tensor, stream: Tensor | None) -> Tensor:
        """The stream with what block `index` gets, `(B, C, h, w)`."""
        taken: Tensor = self.low_rank[index](x)
        return taken if stream is None else self.between[index - 1](stream) + taken

    def feedback(self, index: int, stream: Tensor) -> Tensor:
        """What is added to the output of block `index`, `(B, C, h, w)`."""
        out: Tensor = self.feedbacks[self.stage_of[index]](stream)
        return out


class DtlLowRank(nn.Module):
    """`x A B` at every position, pooled where the block gives a coarser map than it gets."""

    def __init__(self, inputs: int, outputs: int, rank: int, pool: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(inputs, rank, 1, bias=False)
        self.pool = nn.AvgPool2d(pool) if pool > 1 else nn.Identity()
        self.b = zero_init(nn.Conv2d(rank, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` to `(B, C', h / pool, w / pool)`."""
        out: Tensor = self.b(self.pool(self.a(x)))
        return out


class SideReader(Reader):
    """The side network where nothing goes back: the decoder alone gets the feedback."""

    def __init__(
        self, backbone: Backbone, network: CompactSideNetwork, levels: Sequence[int]
    ) -> None:
        super().__init__()
        self.network = network
        self.levels = tuple(levels)
        self.out_indices = self.internals_at = tuple(range(len(backbone.taps)))
        self.taps = tuple(backbone.taps[i] for i in levels)

    def required_inputs(self, index: int) -> tuple[Part, ...]:
        """See `Reader.required_inputs`."""
        return ("feature", "before") if index in self.levels else ("before",)

    def step(
        self, state: Any, index: int, feature: Tensor, inside: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`. The state is the stream and the maps finished so far."""
        assert inside is not None
        stream, maps = (None, ()) if state is None else state
        stream = self.network.take(index, inside.before, stream)
        if index in self.levels:
            maps = (*maps, feature + as_feature(self.network.feedback(index, stream), feature))
        return stream, maps

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[1]
        return maps


class SharedState:
    """What the blocks of one forward pass hand each other.

    Attributes:
        stream: h, as maps of the last block that ran.
        feedback: for the levels that get theirs outside the backbone.
    """

    def __init__(self) -> None:
        self.stream: Tensor | None = None
        self.feedback: dict[int, Tensor] = {}


class TappedBlock(Wrapped):
    """A block whose input the side network reads; from block M on its output gets the feedback."""

    carries = True

    def __init__(
        self,
        inner: nn.Module,
        backbone: Backbone,
        network: CompactSideNetwork,
        passing: SharedState,
        index: int,
        *,
        feeds_back: bool,
        keeps: bool,
    ) -> None:
        super().__init__(inner)
        self._backbone, self._network = [backbone], [network]  # not a second owner
        self.passing = passing
        self.index = index
        self.feeds_back = feeds_back
        self.keeps = keeps

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """As the block inside."""
        backbone, network = self._backbone[0], self._network[0]
        index, passing = self.index, self.passing
        found = backbone.tokens_to_maps(index, inputs[0] if inputs else named["x"])
        stream = network.take(index, found.maps, passing.stream if index else None)
        out: Tensor = self.inner(*inputs, **named)
        passing.stream = None if index == len(backbone.taps) - 1 else stream
        if self.keeps or self.feeds_back:
            placed = backbone.tokens_to_maps(index, out)
            feedback = network.feedback(index, stream)
            if self.feeds_back:
                return placed.restore(placed.maps + feedback)
            passing.feedback[index] = torch.unflatten(feedback, 0, (-1, placed.per_location)).mean(
                1
            )
        return out


class FeedbackReader(Reader):
    """Reads the levels; those before block M get the feedback here."""

    def __init__(self, backbone: Backbone, levels: Sequence[int], passing: SharedState) -> None:
        super().__init__()
        self.out_indices = tuple(levels)
        self.taps = tuple(backbone.taps[i] for i in levels)
        self.passing = passing

    def start(self, images: Tensor) -> Any:
        """See `Reader.start`."""
        self.passing.stream = None
        self.passing.feedback.clear()
        return ()

    def step(
        self, state: Any, index: int, feature: Tensor, inside: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`."""
        feedback = self.passing.feedback.pop(index, None)
        return (*state, feature if feedback is None else feature + as_feature(feedback, feature))

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state
        return maps


def feed_back(
    backbone: Backbone, network: CompactSideNetwork, first: int, levels: Sequence[int]
) -> SharedState:
    """Put the side network into the backbone; from block `first` on it changes the stream."""
    passing = SharedState()
    for index, block in enumerate(backbone.blocks):
        wrapped = TappedBlock(
            block,
            backbone,
            network,
            passing,
            index,
            feeds_back=index >= first,
            keeps=index in levels,
        )
        if index == 0:
            wrapped.part = inserted(network)
        inject(backbone, block, wrapped)
    return passing


@torch.no_grad()
def block_inputs(backbone: Backbone) -> list[tuple[int, int]]:
    """Of every block's input: how wide it is, and how many times finer than the output."""
    found: dict[int, tuple[int, int]] = {}
    size = backbone.size_divisor if backbone.tiled else 2 * backbone.size_divisor
    indices = range(len(backbone.taps))
    training = backbone.training
    backbone.eval()
    with torch.random.fork_rng(devices=[]), capture_block_activations(backbone, indices) as seen:
        inputs = backbone.example(size, size)
        device = next(backbone.parameters()).device

        def on_tap(index: int, feature: Tensor) -> Tensor:
            before = seen.pop(index)(feature).before
            found[index] = before.shape[1], round(before.shape[-1] / feature.shape[-1])
            return feature.new_empty(0)

        backbone(**{name: value.to(device) for name, value in inputs.items()}, on_tap=on_tap)
    backbone.train(training)
    return [found[index] for index in indices]


class Feedback(nn.Conv2d):
    """`DWConv(swish(h))` on maps `(B, C, h, w)`; the convolution starts as the identity."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__(
            width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False
        )
        nn.init.dirac_(self.weight, groups=width)

    def forward(self, h: Tensor) -> Tensor:
        """See the class."""
        return super().forward(h * torch.sigmoid(BETA * h))
