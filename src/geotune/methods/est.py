"""EST, efficient side-tuning (IEEE JSTARS 2025, doi 10.1109/JSTARS.2025.3563641).

A parallel network beside the frozen backbone is all that trains; no gradient crosses the backbone.
The paper names the parts of its block (multichannel adapter fusion, a gate layer, a depthwise
convolution, for feature selection and enhancement) but not their inner dimensions; this is our
reading, with a side stream s of d channels:

      frozen block i      z = Down(x_i)                                    1x1, C -> d
            |             g = sigmoid(W [z, s] + b)                        gate: feature selection
           x_i            h = g z + (1 - g) s
            |             h = h + sum_k w_k Up_k(GELU(Down_k(LN(h))))      widths d/2, d/4, d/8
      s --> block --> s   h = h + DWConv(h)                                enhancement

With `fusion: spatial` the bottlenecks differ in resolution, not in width, and share Up, as in MuFA
(Multi-Fusion Adapter, 2024), the other reading of "multichannel adapter fusion":

    h = h + Up(sum_k w_k resize(GELU(Down_k(pool_k(LN(h))))))   rates 1, 2, 4; all d/2 wide

pool_k averages k x k pixels, resize is bilinear, w = softmax. Up starts at zero.

With `use_block_internals`, z is the sum of such projections of the block's output, of what its
attention adds to the residual stream, and of what its MLP adds. A static gate is g = sigmoid(b),
one value per channel. The decoder gets, at each level,

    output: side    s + Mix(x), resized to the strides P/4, P/2, P, 2P for a plain ViT
    output: sum     x + Mix(s), Mix starting at zero: training starts at the frozen features
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import EstOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import block_widths, freeze, zero_init
from geotune.methods.core.method_errors import option_error
from geotune.methods.core.pca import FixedProjection, RunningCovariance
from geotune.methods.core.reader import BlockActivations, Reader, ReaderInput, level_indices
from geotune.methods.core.side_network import (
    check_odd,
    check_reduction,
    downsample,
    select_blocks,
    side_width,
)
from geotune.methods.core.stride_resize import StrideResize, pyramid_scales
from geotune.types import Tap


class Est(EstOptions, Method):
    """Efficient side-tuning: a small network parallel to the frozen backbone."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        check_odd("kernel_size", self.kernel_size)
        check_reduction(backbone, self.reduction)
        if self.use_block_internals:
            if self.projection_init != "random":
                raise option_error(
                    "projection_init",
                    self.projection_init,
                    "principal components are fitted to block outputs alone; use "
                    "method.use_block_internals=false or method.projection_init=random",
                )
            require_block_internals(backbone)
        freeze(backbone)
        return checked_encoder(backbone, self, EstStream(backbone, self), backbone_frozen=True)


def require_block_internals(backbone: Backbone) -> None:
    """Raise `GeotuneError` if the outputs of attention and MLP are not accessible."""
    accessible = backbone.blocks and backbone.has_spatial_tokens
    if not accessible or not all(backbone.block_parts(i).mlp for i in range(len(backbone.taps))):
        raise GeotuneError(
            f"method.use_block_internals: attention and MLP in the blocks of {backbone.name} are "
            "not accessible; use method.use_block_internals=false",
            code="method-unsupported",
            key="method.use_block_internals",
        )


class EstStream(Reader):
    """The side network: a block for each tap that it reads, and the maps for the decoder."""

    recomputable = ("blocks", "rescale")

    def __init__(self, backbone: Backbone, options: EstOptions) -> None:
        super().__init__()
        levels = level_indices(backbone)
        self.out_indices = select_blocks(backbone, levels, options.block_stride)
        self.internals_at = self.out_indices if options.use_block_internals else ()
        self.output = options.output or "side"
        self.calibration_samples = 0 if options.projection_init == "random" else 32
        self._fitted = not self.calibration_samples
        self._observed: dict[int, RunningCovariance] = {}
        if self.calibration_samples:
            self.register_buffer("fitted", torch.zeros(()))
        inputs = [backbone.taps[i] for i in self.out_indices]
        widths = [side_width(tap.channels, options.reduction, options.min_width) for tap in inputs]

        project = FixedProjection if options.projection_init == "pca_fixed" else _TrainedProjection
        self.down = nn.ModuleList(
            project(tap.channels, width) for tap, width in zip(inputs, widths, strict=True)
        )
        self.from_inside = nn.ModuleDict()
        for index, width in zip(self.internals_at, widths, strict=False):
            parts, channels = backbone.block_parts(index), block_widths(backbone)[index]
            self.from_inside[str(index)] = nn.ModuleDict(
                {
                    name: nn.Conv2d(channels, width, 1)
                    for name, module in (("attention", parts.middle), ("mlp", parts.mlp))
                    if module
                }
            )
        self.blocks = nn.ModuleList(
            EstBlock(width, options, gated=i > 0) for i, width in enumerate(widths)
        )
        self.between = nn.ModuleList(
            downsample(inputs[i - 1], inputs[i], widths[i - 1], widths[i]) if i else nn.Identity()
            for i in range(len(inputs))
        )

        scales = pyramid_scales(inputs[-1].stride) if backbone.is_plain_vit else [1.0] * len(levels)
        if self.output == "sum":
            scales = [1.0] * len(levels)
        scales = scales[: len(levels)]  # a shallow ViT has fewer levels than a pyramid
        self.levels = tuple(levels)[-len(scales) :]
        self.fixed = options.projection_init == "pca_fixed"
        self.mix = nn.ModuleDict()
        self.rescale = nn.ModuleDict()
        taps = []
        for level, scale in zip(self.levels, scales, strict=True):
            at = self.out_indices.index(level)
            tap, width = inputs[at], widths[at]
            if self.output == "sum":
                self.mix[str(level)] = zero_init(nn.Conv2d(width, tap.channels, 1))
                taps.append(tap)
            else:
                channels = width if self._is_compressed(level) else tap.channels
                self.mix[str(level)] = nn.Conv2d(channels, width, 1)
                self.rescale[str(level)] = StrideResize(width, scale)
                taps.append(Tap(f"est.{tap.name}", width, tap.stride / scale))
        self.taps = tuple(taps)

    def start(self, images: Tensor) -> Any:
        """See `Reader.start`. Raises `GeotuneError` if calibration is missing."""
        if self.training and not self._fitted:
            self._fitted = bool(self.get_buffer("fitted"))  # an adapter may have been loaded
            if not self._fitted:
                raise GeotuneError(
                    "method.projection_init: the principal components are not fitted; call "
                    "encoder.calibrate(batches) with some images before training",
                    code="calibration-missing",
                    key="method.projection_init",
                )
        return None

    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`. The state is the side stream and the maps so far."""
        stream, maps = (None, ()) if state is None else state
        at = self.out_indices.index(index)
        z = _as_computed(feature) if self._is_compressed(index) else self.down[at](feature)
        if activations is not None:
            for name, project in self.from_inside[str(index)].items():  # type: ignore[operator]
                z = z + project(getattr(activations, name))
        if stream is not None:
            stream = self.between[at](stream)
        stream = self.blocks[at](z, stream)
        if index in self.levels:
            mix = self.mix[str(index)]
            if self.output == "sum":
                maps = (*maps, feature + mix(stream))
            else:
                maps = (*maps, self.rescale[str(index)](stream + mix(feature)))
        return stream, maps

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[1]
        return maps

    def required_inputs(self, index: int) -> tuple[ReaderInput, ...]:
        """See `Reader.required_inputs`."""
        return ("feature", "attention", "mlp") if index in self.internals_at else ("feature",)

    def compress(self, index: int, feature: Tensor) -> Tensor:
        """See `Reader.compress`: with `pca_fixed` the projection to `(B, d, h, w)`."""
        if not self._is_compressed(index):
            return feature
        out: Tensor = self.down[self.out_indices.index(index)](feature)
        return out

    def compression_module(self) -> nn.Module | None:
        """See `Reader.compression_module`."""
        return self.down if self.fixed else None

    def _is_compressed(self, index: int) -> bool:
        """Whether only the fixed projection of a tap is read, not the tap itself."""
        return self.fixed and not (self.output == "sum" and index in self.levels)

    def observe(self, index: int, feature: Tensor) -> None:
        """See `Reader.observe`."""
        self._observed.setdefault(index, RunningCovariance()).add(feature)

    def calibrate(self) -> None:
        """See `Reader.calibrate`: set the projections to the taps' principal components."""
        for index, down in zip(self.out_indices, self.down, strict=True):
            tensor = down.get_buffer if isinstance(down, FixedProjection) else down.get_parameter
            covariance = self._observed.pop(index)
            weight, bias = covariance.principal_components(len(tensor("bias")))
            tensor("weight").copy_(weight)
            tensor("bias").copy_(bias)
        self.get_buffer("fitted").fill_(1)
        self._fitted = True


def _as_computed(projected: Tensor) -> Tensor:
    """A cached projection in the dtype that the projection has where it is computed."""
    device = projected.device.type
    if not torch.is_autocast_enabled(device):
        return projected
    return projected.to(torch.get_autocast_dtype(device))


class EstBlock(nn.Module):
    """Gate, multichannel adapter fusion, depthwise convolution."""

    def __init__(self, width: int, options: EstOptions, *, gated: bool) -> None:
        super().__init__()
        self.gate: nn.Module | None = None
        if gated:
            dynamic = options.gate == "dynamic"
            self.gate = nn.Conv2d(2 * width, width, 1) if dynamic else _StaticGate(width)
        self.norm = nn.LayerNorm(width)
        # all adapters in one pair of matrices: their weighted sum is a single product
        self.adapter_widths = [max(1, width // share) for share in options.adapters]
        up_width = sum(self.adapter_widths)
        self.pool_rates = options.pool_rates if options.fusion == "spatial" else ()
        if self.pool_rates:
            up_width = self.adapter_widths[0]
            self.adapter_widths = [up_width] * len(self.pool_rates)
        self.adapters_down = nn.Linear(width, sum(self.adapter_widths))
        self.adapters_up = zero_init(nn.Linear(up_width, width))
        several = len(self.adapter_widths) > 1
        self.adapter_logits = nn.Parameter(torch.zeros(len(self.adapter_widths)), several)
        side = options.kernel_size
        self.enhance = zero_init(nn.Conv2d(width, width, side, padding=side // 2, groups=width))

    def forward(self, z: Tensor, stream: Tensor | None) -> Tensor:
        """Projected features z and side stream s, `(B, d, h, w)`, to the new stream."""
        if self.gate is None or stream is None:
            h = z
        else:
            g = torch.sigmoid(self.gate(torch.cat([z, stream], dim=1)))
            h = torch.lerp(stream, z, g.to(stream.dtype))
        normed = self.norm(h.permute(0, 2, 3, 1))
        inner = self._fuse_rates(normed) if self.pool_rates else self._fuse_widths(normed)
        h = h + self.adapters_up(inner).permute(0, 3, 1, 2)
        enhanced: Tensor = h + self.enhance(h)
        return enhanced

    def _fuse_widths(self, normed: Tensor) -> Tensor:
        """`(B, h, w, d)` to weighted bottlenecks `(B, h, w, sum of widths)`."""
        weights = self.adapter_logits.softmax(0)
        per_channel = torch.cat(
            [w.expand(n) for w, n in zip(weights, self.adapter_widths, strict=True)]
        )
        fused: Tensor = F.gelu(self.adapters_down(normed)) * per_channel
        return fused

    def _fuse_rates(self, normed: Tensor) -> Tensor:
        """`(B, h, w, d)` to the weighted sum of bottlenecks, `(B, h, w, width)`."""
        maps = normed.permute(0, 3, 1, 2)
        height, width = maps.shape[-2:]
        weights = self.adapter_logits.softmax(0)
        matrices = torch.split(self.adapters_down.weight, self.adapter_widths)
        biases = torch.split(self.adapters_down.bias, self.adapter_widths)
        fused = maps.new_zeros(())
        for rate, weight, matrix, bias in zip(
            self.pool_rates, weights, matrices, biases, strict=True
        ):
            pooled = F.avg_pool2d(maps, rate, ceil_mode=True)
            inner = F.gelu(F.conv2d(pooled, matrix[..., None, None], bias))
            if rate > 1:  # by the rate itself, also where it does not divide the size
                inner = F.interpolate(inner, scale_factor=float(rate), mode="bilinear")
                inner = inner[..., :height, :width]
            fused = fused + weight * inner
        return fused.permute(0, 2, 3, 1)


class _StaticGate(nn.Module):
    """Gate logits that do not depend on the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, both: Tensor) -> Tensor:
        return self.bias.expand(len(both), -1, *both.shape[-2:])


class _TrainedProjection(nn.Conv2d):
    """A trainable 1x1 convolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 1)
