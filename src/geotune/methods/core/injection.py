"""Putting trainable modules into a frozen backbone's blocks.

A part is put in by wrapping the module that it changes, so that a copy of the model, a compiled
one and one whose layers are called with more than one argument all work alike. Where a block adds
what it computes to a residual stream, the places are (see `backbones/blocks.py`):

    before --> + attention --> middle --> + MLP --> after
                    |             |          |        |
             after_attention   at_middle  after_mlp  after_block      (after_block: its output)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.backbones.blocks import no_spatial_tokens_error
from geotune.errors import GeotuneError


def inserted(module: nn.Module) -> nn.Module:
    """Mark a module as put in by a method: it follows the encoder's mode, not the backbone's."""
    for part in module.modules():
        part.geotune_inserted = True  # type: ignore[assignment]
    return module


def is_inserted(module: nn.Module) -> bool:
    """Whether a module was put into the backbone by a method, and so follows its mode."""
    return bool(getattr(module, "geotune_inserted", False))


def freeze(module: nn.Module) -> None:
    """No parameter of the module trains."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


class Wrapped(nn.Module):
    """A module in another's place; what is not found on it is that of the module inside.

    Attributes:
        carries: one call leaves something for another, so that it cannot be called again later.
    """

    carries = False

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.training = inner.training

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


class SequentialAdapter(Wrapped):
    """`part(inner(x))`."""

    def __init__(self, inner: nn.Module, part: nn.Module) -> None:
        super().__init__(inner)
        self.part = inserted(part)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """As the module inside."""
        out: Tensor = self.part(self.inner(*inputs, **named))
        return out


class ParallelAdapter(Wrapped):
    """`inner(x) + part(x)`."""

    def __init__(self, inner: nn.Module, part: nn.Module) -> None:
        super().__init__(inner)
        self.part = inserted(part)

    def forward(self, x: Tensor, *inputs: Any, **named: Any) -> Tensor:
        """As the module inside."""
        out: Tensor = self.inner(x, *inputs, **named) + self.part(x)
        return out


class _AtMiddle(Wrapped):
    """Changes the stream that the module inside sees, and remembers the change."""

    def __init__(self, inner: nn.Module, part: nn.Module) -> None:
        super().__init__(inner)
        self.part = inserted(part)
        self.change: Tensor | None = None

    def forward(self, x: Tensor, *inputs: Any, **named: Any) -> Tensor:
        changed = self.part(x)
        self.change = changed - x
        out: Tensor = self.inner(changed, *inputs, **named)
        return out


class _KeepsMiddle(Wrapped):
    """A block whose stream is changed in the middle: the change reaches its output, too."""

    def __init__(self, inner: nn.Module, middle: _AtMiddle) -> None:
        super().__init__(inner)
        self._middle = [middle]  # not a second owner

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        out: Tensor = self.inner(*inputs, **named)
        middle = self._middle[0]
        change, middle.change = middle.change, None
        return out if change is None else out + change.reshape(out.shape)


def inject(backbone: Backbone, old: nn.Module, new: nn.Module) -> None:
    """Put a module into another's place in the backbone's model."""
    name = next(name for name, module in backbone.model.named_modules() if module is old)
    backbone.model.set_submodule(name, new)


def after_attention(backbone: Backbone, index: int, part: nn.Module) -> None:
    """`part` on what block `index` has from attention, before it is added to the stream."""
    _wrap(backbone, index, backbone.block_parts(index).attention, SequentialAdapter, part)


def after_mlp(backbone: Backbone, index: int, part: nn.Module) -> None:
    """`part` on what block `index` has from its MLP, before it is added to the stream."""
    _wrap(backbone, index, backbone.block_parts(index).mlp, SequentialAdapter, part)


def beside_mlp(backbone: Backbone, index: int, part: nn.Module) -> None:
    """`part` on the input of block `index`'s MLP, added to its output."""
    _wrap(backbone, index, backbone.block_parts(index).mlp, ParallelAdapter, part)


def at_middle(backbone: Backbone, index: int, part: nn.Module) -> None:
    """`part` on the stream of block `index` between attention and MLP."""
    block = backbone.blocks[index]
    name = backbone.block_parts(index).middle
    assert name is not None, f"block {index} of {backbone.name} has no middle"
    middle = _AtMiddle(block.get_submodule(name), part)
    block.set_submodule(name, middle)
    inject(backbone, block, _KeepsMiddle(block, middle))


def after_parts(backbone: Backbone, part: Callable[[int], nn.Module]) -> None:
    """`part(channels)` after attention and after the MLP of every block.

    A block that has only an MLP gets one, and one that has neither (a ResNet's) on its output.
    """
    for index, channels in enumerate(widths(backbone)):
        parts = backbone.block_parts(index)
        if parts.attention:
            after_attention(backbone, index, part(channels))
        if parts.mlp:
            after_mlp(backbone, index, part(channels))
        if not parts.attention and not parts.mlp:
            after_block(backbone, index, part(channels))


def after_block(backbone: Backbone, index: int, part: nn.Module) -> None:
    """`part` on the output of block `index`."""
    block = backbone.blocks[index]
    inject(backbone, block, SequentialAdapter(block, part))


def _wrap(
    backbone: Backbone, index: int, name: str | None, wrapper: type[Any], part: nn.Module
) -> None:
    block = backbone.blocks[index]
    assert name is not None, f"block {index} of {backbone.name} has no such part"
    block.set_submodule(name, wrapper(block.get_submodule(name), part))


def widths(backbone: Backbone) -> list[int]:
    """How wide the stream of each block is."""
    if backbone.combine == "concat":  # a tap then holds all dates
        return [tap.channels // backbone.timesteps for tap in backbone.taps]
    return [tap.channels for tap in backbone.taps]


def require_blocks(backbone: Backbone, method: str) -> None:
    """Raise `GeotuneError` for a model that shows no blocks to put something into."""
    if not backbone.blocks:
        raise GeotuneError(
            f"{method} on {backbone.name}: the model shows no blocks to put something into; "
            "choose est, frozen or full"
        )


def require_plain(backbone: Backbone, method: str) -> None:
    """Raise `GeotuneError` for a model whose blocks are not all of one stride."""
    require_blocks(backbone, method)
    if not backbone.is_columnar:
        strides = ", ".join(f"{backbone.taps[stage[0]].stride:g}" for stage in backbone.stages)
        raise GeotuneError(
            f"{method} on {backbone.name}: it is for plain ViTs, and the blocks of this model have "
            f"strides {strides}; choose est, adapter or lora"
        )


def require_mlp(backbone: Backbone, method: str) -> None:
    """Raise `GeotuneError` for a model whose blocks have no MLP."""
    require_blocks(backbone, method)
    if not all(backbone.block_parts(index).mlp for index in range(len(backbone.blocks))):
        raise GeotuneError(
            f"{method} on {backbone.name}: its blocks have no MLP to put something beside; choose "
            "adapter, mona or a method beside the backbone"
        )


def require_places(backbone: Backbone, method: str) -> None:
    """Raise `GeotuneError` where the tokens inside the blocks have no place in the image."""
    if not backbone.has_spatial_tokens:
        raise no_spatial_tokens_error(backbone.name, method)


def check_width(key: str, width: int, backbone: Backbone) -> None:
    """Raise `GeotuneError` for a bottleneck wider than the layer that it stands in."""
    narrowest = min(widths(backbone))
    if width > narrowest:
        raise GeotuneError(
            f"method.{key} {width}: the blocks of {backbone.name} are {narrowest} wide (the "
            f"narrowest); choose at most {narrowest}"
        )


def zero_init(layer: Any) -> Any:
    """The layer with weights and bias at zero, so that training starts from frozen features."""
    nn.init.zeros_(layer.weight)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)
    return layer


def apply_channels_last(function: Callable[[Tensor], Tensor], x: Tensor, channels: int) -> Tensor:
    """Apply a function of vectors `(..., C)` to such a tensor, or to a map `(B, C, h, w)`."""
    if x.ndim == 4 and x.shape[-1] != channels:
        return function(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return function(x)
