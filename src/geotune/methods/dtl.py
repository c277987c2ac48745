"""DTL, disentangled transfer learning: a compact side network (AAAI 2024, arXiv 2312.07856).

    h_i = h_(i-1) + x_i A_i B_i                             before every block i, h_0 = 0
    x_(i+1) = block_i(x_i) + DWConv(swish(h_i))             from block M on
    y = x + DWConv(swish(h))                                at the levels before block M

      x_1 --> block 1 --> x_2 --> ... --> block M --> + --> x_(M+1)
       |                   |                |         |
      A B                 A B              A B        |
       |                   |                |         |
       + ------- h ------- + ------- ... -- + -- DWConv(swish(h_M))

A is C x r and random, B is r x C and starts at zero; swish(h) = h sigmoid(beta h), with beta = 100
as in the authors' experiments, which use r = 2, a 3x3 convolution and M = 7 of 12 blocks for a
ViT-B. Up to block M the side stream h reads frozen features only, so gradients cross only the
blocks after M. With M as the last block, they cross none: a pure side network.

Choices of ours: levels before M also get the feedback, but for the decoder alone (the paper has no
pyramid). All blocks share one convolution, as in the paper, or those of a stage do, because widths
differ; it starts as the identity, which is the paper's variant without it: behind a zero B, a zero
convolution would never train. Between stages h passes a strided depthwise convolution and a 1x1
without biases. Class and register tokens are not read and get no feedback. If a block itself
downsamples (ResNet), its input is average-pooled to the stride of its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import DtlOptions
from geotune.methods.core.base import Method
from geotune.methods.core.block_hooks import capture_block_activations
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    ModuleWrapper,
    block_widths,
    check_width,
    freeze,
    mark_inserted,
    replace_module,
    require_blocks,
    require_equal_widths,
    require_spatial_tokens,
    zero_init,
)
from geotune.methods.core.method_errors import option_error
from geotune.methods.core.reader import BlockActivations, Reader, ReaderInput, level_indices
from geotune.methods.core.side_network import check_odd, downsample, match_tap_shape

BETA = 100.0


class Dtl(DtlOptions, Method):
    """A low-rank side stream of the blocks' inputs, fed back late or not at all."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        check_odd("kernel_size", self.kernel_size)
        require_blocks(backbone, "dtl")
        require_equal_widths(backbone, "dtl")
        require_spatial_tokens(backbone, "dtl")
        check_width("rank", self.rank, backbone)
        depth = len(backbone.blocks)
        feedback_from = depth if self.feedback_from is None else self.feedback_from
        if feedback_from > depth:
            problem = f"{backbone.name} has {depth} blocks; choose at most {depth}"
            raise option_error("feedback_from", feedback_from, problem)
        freeze(backbone)
        network = CompactSideNetwork(backbone, rank=self.rank, kernel_size=self.kernel_size)
        levels = level_indices(backbone)
        reader: Reader
        if feedback_from == depth:
            reader = SideReader(backbone, network, levels)
        else:
            shared = insert_side_network(backbone, network, feedback_from - 1, levels)
            reader = FeedbackReader(backbone, levels, shared)
        return checked_encoder(backbone, self, reader, backbone_frozen=feedback_from == depth)


class CompactSideNetwork(nn.Module):
    """The trainable modules: a low-rank map for each block, transitions, and feedback."""

    recomputable = ("feedbacks",)

    def __init__(self, backbone: Backbone, *, rank: int, kernel_size: int) -> None:
        super().__init__()
        taps, widths = backbone.taps, block_widths(backbone)
        self.low_rank = nn.ModuleList(
            DtlLowRank(inputs, width, rank, pool)
            for (inputs, pool), width in zip(measure_block_inputs(backbone), widths, strict=True)
        )
        self.between = nn.ModuleList(
            downsample(taps[i - 1], taps[i], widths[i - 1], widths[i], bias=False)
            for i in range(1, len(taps))
        )
        self.stage_of = {i: at for at, stage in enumerate(backbone.stages) for i in stage}
        self.feedbacks = nn.ModuleList(
            FeedbackConv(widths[stage[0]], kernel_size) for stage in backbone.stages
        )

    def accumulate(self, index: int, x: Tensor, stream: Tensor | None) -> Tensor:
        """Add the input of block `index`, `(B, C, h, w)`, to the side stream."""
        update: Tensor = self.low_rank[index](x)
        return update if stream is None else self.between[index - 1](stream) + update

    def feedback(self, index: int, stream: Tensor) -> Tensor:
        """Compute what is added to the output of block `index`, `(B, C, h, w)`."""
        out: Tensor = self.feedbacks[self.stage_of[index]](stream)
        return out


class DtlLowRank(nn.Module):
    """`x A B` at every pixel, pooled if the block's output is coarser than its input."""

    def __init__(self, inputs: int, outputs: int, rank: int, pool: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(inputs, rank, 1, bias=False)
        self.pool = nn.AvgPool2d(pool) if pool > 1 else nn.Identity()
        self.b = zero_init(nn.Conv2d(rank, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` to `(B, C', h / pool, w / pool)`."""
        out: Tensor = self.b(self.pool(self.a(x)))
        return out


class FeedbackConv(nn.Conv2d):
    """`DWConv(swish(h))`; the convolution starts as the identity."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__(
            width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False
        )
        nn.init.dirac_(self.weight, groups=width)

    def forward(self, h: Tensor) -> Tensor:
        """`(B, C, h, w)` to the same shape."""
        return super().forward(h * torch.sigmoid(BETA * h))


class SideReader(Reader):
    """The side network without feedback into the backbone: only the decoder gets it."""

    def __init__(
        self, backbone: Backbone, network: CompactSideNetwork, levels: Sequence[int]
    ) -> None:
        super().__init__()
        self.network = network
        self.levels = tuple(levels)
        self.out_indices = self.internals_at = tuple(range(len(backbone.taps)))
        self.taps = tuple(backbone.taps[i] for i in levels)

    def required_inputs(self, index: int) -> tuple[ReaderInput, ...]:
        """See `Reader.required_inputs`."""
        return ("feature", "before") if index in self.levels else ("before",)

    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`. The state is the side stream and the maps so far."""
        assert activations is not None
        stream, maps = (None, ()) if state is None else state
        stream = self.network.accumulate(index, activations.before, stream)
        if index in self.levels:
            feedback = match_tap_shape(self.network.feedback(index, stream), feature)
            maps = (*maps, feature + feedback)
        return stream, maps

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[1]
        return maps


class SharedState:
    """What the tapped blocks share during one forward pass.

    Attributes:
        stream: h, as maps of the last block that ran.
        feedback: for levels before block M, by index; the reader adds it.
    """

    def __init__(self) -> None:
        self.stream: Tensor | None = None
        self.feedback: dict[int, Tensor] = {}


class TappedBlock(ModuleWrapper):
    """A block whose input the side network reads; from block M on it adds the feedback.

    Args:
        adds_feedback: to the block's output.
        stores_feedback: for the reader, which adds it to the tap.
    """

    has_side_effects = True

    def __init__(
        self,
        inner: nn.Module,
        backbone: Backbone,
        network: CompactSideNetwork,
        shared: SharedState,
        index: int,
        *,
        adds_feedback: bool,
        stores_feedback: bool,
    ) -> None:
        super().__init__(inner)
        self._backbone, self._network = [backbone], [network]  # in lists: no submodules
        self.shared = shared
        self.index = index
        self.adds_feedback = adds_feedback
        self.stores_feedback = stores_feedback

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Same inputs and shapes as the wrapped block."""
        backbone, network = self._backbone[0], self._network[0]
        index, shared = self.index, self.shared
        x = backbone.tokens_to_maps(index, inputs[0] if inputs else named["x"])
        stream = network.accumulate(index, x.maps, shared.stream if index else None)
        out: Tensor = self.inner(*inputs, **named)
        shared.stream = None if index == len(backbone.taps) - 1 else stream
        if self.stores_feedback or self.adds_feedback:
            y = backbone.tokens_to_maps(index, out)
            feedback = network.feedback(index, stream)
            if self.adds_feedback:
                return y.restore(y.maps + feedback)
            shared.feedback[index] = torch.unflatten(feedback, 0, (-1, y.per_location)).mean(1)
        return out


class FeedbackReader(Reader):
    """Reads the levels, and adds the feedback to those before block M."""

    def __init__(self, backbone: Backbone, levels: Sequence[int], shared: SharedState) -> None:
        super().__init__()
        self.out_indices = tuple(levels)
        self.taps = tuple(backbone.taps[i] for i in levels)
        self.shared = shared

    def start(self, images: Tensor) -> Any:
        """See `Reader.start`. The state is the maps so far."""
        self.shared.stream = None
        self.shared.feedback.clear()
        return ()

    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`."""
        feedback = self.shared.feedback.pop(index, None)
        if feedback is not None:
            feature = feature + match_tap_shape(feedback, feature)
        return (*state, feature)

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state
        return maps


def insert_side_network(
    backbone: Backbone, network: CompactSideNetwork, first: int, levels: Sequence[int]
) -> SharedState:
    """Insert the side network into the backbone, with feedback from block `first` on."""
    shared = SharedState()
    for index, block in enumerate(backbone.blocks):
        tapped = TappedBlock(
            block,
            backbone,
            network,
            shared,
            index,
            adds_feedback=index >= first,
            stores_feedback=index in levels,
        )
        if index == 0:
            tapped.part = mark_inserted(network)
            tapped.part.geotune_shared = True  # type: ignore[assignment]  # all blocks read it
        replace_module(backbone, block, tapped)
    return shared


@torch.no_grad()
def measure_block_inputs(backbone: Backbone) -> list[tuple[int, int]]:
    """Return, for every block, the channels of its input and its downsampling factor."""
    measured: dict[int, tuple[int, int]] = {}
    size = backbone.size_divisor if backbone.tiled else 2 * backbone.size_divisor
    indices = range(len(backbone.taps))
    training = backbone.training
    backbone.eval()
    with (
        torch.random.fork_rng(devices=[]),
        capture_block_activations(backbone, indices) as captured,
    ):
        inputs = backbone.example(size, size)
        device = next(backbone.parameters()).device

        def on_tap(index: int, feature: Tensor) -> Tensor:
            before = captured.pop(index)(feature).before
            measured[index] = before.shape[1], round(before.shape[-1] / feature.shape[-1])
            return feature.new_empty(0)

        backbone(**{name: value.to(device) for name, value in inputs.items()}, on_tap=on_tap)
    backbone.train(training)
    return [measured[index] for index in indices]
