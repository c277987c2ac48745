"""Insert trainable modules into the blocks of a frozen backbone.

A module is inserted by wrapping the one that it modifies, so copies, compiled models, and layers
called with several arguments work alike. Insertion points along a block's residual stream (see
`backbones/blocks.py`):

    before --> + attention --> middle --> + MLP --> after
                    |             |          |        |
             after attention  mid-block  after MLP  after block

Inserted modules are attributes called `part` of their wrapper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.backbones.blocks import no_spatial_tokens_error
from geotune.methods.core.method_errors import option_error, unsupported_error


def mark_inserted(module: nn.Module) -> nn.Module:
    """Mark a module as inserted: it follows the encoder's training mode, not the backbone's."""
    for child in module.modules():
        child.geotune_inserted = True  # type: ignore[assignment]
    return module


def is_inserted(module: nn.Module) -> bool:
    """Whether a method inserted this module into the backbone."""
    return bool(getattr(module, "geotune_inserted", False))


def freeze(module: nn.Module) -> None:
    """Set `requires_grad` of all parameters to false."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


class ModuleWrapper(nn.Module):
    """Replaces a module; attributes that it lacks are looked up on the wrapped module.

    Attributes:
        has_side_effects: a call stores something for another module, so activation checkpointing
            must not repeat it.
    """

    has_side_effects = False

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.training = inner.training

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


class InsertedPart(ModuleWrapper):
    """Wraps a module together with an inserted one."""

    def __init__(self, inner: nn.Module, part: nn.Module) -> None:
        super().__init__(inner)
        self.part = mark_inserted(part)


class SequentialAdapter(InsertedPart):
    """`part(inner(x))`."""

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Same inputs and shapes as the wrapped module."""
        out: Tensor = self.part(self.inner(*inputs, **named))
        return out


class ParallelAdapter(InsertedPart):
    """`inner(x) + part(x)`."""

    def forward(self, x: Tensor, *inputs: Any, **named: Any) -> Tensor:
        """Same inputs and shapes as the wrapped module."""
        out: Tensor = self.inner(x, *inputs, **named) + self.part(x)
        return out


class _MidBlockAdapter(InsertedPart):
    """Changes the stream that the wrapped module reads, and stores the change for the block."""

    change: Tensor | None = None

    def forward(self, x: Tensor, *inputs: Any, **named: Any) -> Tensor:
        changed = self.part(x)
        self.change = changed - x
        out: Tensor = self.inner(changed, *inputs, **named)
        return out


class _MidBlockResidual(ModuleWrapper):
    """A block with a `_MidBlockAdapter`: adds the stored change to the residual stream, too."""

    def __init__(self, inner: nn.Module, middle: _MidBlockAdapter) -> None:
        super().__init__(inner)
        self._middle = [middle]  # in a list, so that it is no submodule

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        middle = self._middle[0]
        try:
            out: Tensor = self.inner(*inputs, **named)
            change = middle.change
        finally:  # also if memory ran out: it would keep the graph of the blocks before
            middle.change = None
        return out if change is None else out + change.reshape(out.shape)


def replace_module(backbone: Backbone, old: nn.Module, new: nn.Module) -> None:
    """Replace a module inside `backbone.model`."""
    name = next(name for name, module in backbone.model.named_modules() if module is old)
    backbone.model.set_submodule(name, new)


def add_shared_part(backbone: Backbone, part: nn.Module) -> None:
    """Register what inserted modules of several blocks share, as `backbone.part`.

    It is outside of the blocks, because sharded training gathers the parameters of one block at a
    time; the inserted modules keep it in a list, so that it is no submodule of theirs.
    """
    backbone.part = mark_inserted(part)


def remove_shared_part(backbone: Backbone) -> None:
    """Undo `add_shared_part`, if it was called."""
    if hasattr(backbone, "part"):
        del backbone.part


def insert_after_attention(backbone: Backbone, index: int, part: nn.Module) -> None:
    """Apply `part` to the attention output of block `index`, before the residual addition."""
    _wrap(backbone, index, backbone.block_parts(index).attention, SequentialAdapter, part)


def insert_after_mlp(backbone: Backbone, index: int, part: nn.Module) -> None:
    """Apply `part` to the MLP output of block `index`, before the residual addition."""
    _wrap(backbone, index, backbone.block_parts(index).mlp, SequentialAdapter, part)


def insert_parallel_to_mlp(backbone: Backbone, index: int, part: nn.Module) -> None:
    """Add `part` of the MLP's input to the MLP's output in block `index`."""
    _wrap(backbone, index, backbone.block_parts(index).mlp, ParallelAdapter, part)


def insert_mid_block(backbone: Backbone, index: int, part: nn.Module) -> None:
    """Apply `part` to the residual stream of block `index` between attention and MLP."""
    block = backbone.blocks[index]
    name = backbone.block_parts(index).middle
    assert name is not None, f"block {index} of {backbone.name} has no middle"
    middle = _MidBlockAdapter(block.get_submodule(name), part)
    block.set_submodule(name, middle)
    replace_module(backbone, block, _MidBlockResidual(block, middle))


def insert_after_block(backbone: Backbone, index: int, part: nn.Module) -> None:
    """Apply `part` to the output of block `index`."""
    block = backbone.blocks[index]
    replace_module(backbone, block, SequentialAdapter(block, part))


def insert_after_attention_and_mlp(backbone: Backbone, build: Callable[[int], nn.Module]) -> None:
    """Insert `build(channels)` after attention and after the MLP of every block.

    Blocks with an MLP alone get one; blocks with neither (ResNet) get one on their output.
    """
    for index, channels in enumerate(block_widths(backbone)):
        parts = backbone.block_parts(index)
        if parts.attention:
            insert_after_attention(backbone, index, build(channels))
        if parts.mlp:
            insert_after_mlp(backbone, index, build(channels))
        if not parts.attention and not parts.mlp:
            insert_after_block(backbone, index, build(channels))


def _wrap(
    backbone: Backbone, index: int, name: str | None, wrapper: type[Any], part: nn.Module
) -> None:
    block = backbone.blocks[index]
    assert name is not None, f"block {index} of {backbone.name} has no such module"
    block.set_submodule(name, wrapper(block.get_submodule(name), part))


def block_widths(backbone: Backbone) -> list[int]:
    """Channels of each block's residual stream."""
    if backbone.combine == "concat":  # a tap concatenates the channels of all dates
        return [tap.channels // backbone.timesteps for tap in backbone.taps]
    return [tap.channels for tap in backbone.taps]


def require_blocks(backbone: Backbone, method: str) -> None:
    """Raise `GeotuneError` if the model's blocks are not accessible."""
    if not backbone.blocks:
        problem = "the blocks of this model are not accessible; choose est, frozen or full"
        raise unsupported_error(method, backbone.name, problem)


def require_plain_vit(backbone: Backbone, method: str) -> None:
    """Raise `GeotuneError` if the blocks do not all have the same stride."""
    require_blocks(backbone, method)
    if not backbone.is_plain_vit:
        strides = ", ".join(f"{backbone.taps[stage[0]].stride:g}" for stage in backbone.stages)
        problem = f"needs a plain ViT, but the blocks of this model have strides {strides}"
        raise unsupported_error(method, backbone.name, f"{problem}; choose est, adapter or lora")


def require_equal_widths(backbone: Backbone, method: str) -> None:
    """Raise `GeotuneError` if the taps of a stage have different channels."""
    for stage in backbone.stages:
        widths = sorted({backbone.taps[index].channels for index in stage})
        if len(widths) > 1:
            raise unsupported_error(
                method,
                backbone.name,
                f"its blocks of stride {backbone.taps[stage[0]].stride:g} have "
                f"{' and '.join(map(str, widths))} channels, expected the same; choose est, lst or "
                "lora",
            )


def require_mlp(backbone: Backbone, method: str) -> None:
    """Raise `GeotuneError` if a block has no MLP."""
    require_blocks(backbone, method)
    if not all(backbone.block_parts(index).mlp for index in range(len(backbone.blocks))):
        raise unsupported_error(
            method,
            backbone.name,
            "needs blocks with an MLP, and these have none; choose adapter, mona or a side network "
            "(est, lst)",
        )


def require_spatial_tokens(backbone: Backbone, method: str) -> None:
    """Raise `GeotuneError` if the tokens inside the blocks have no position in the image."""
    if not backbone.has_spatial_tokens:
        raise no_spatial_tokens_error(backbone.name, method)


def check_width(option: str, width: int, backbone: Backbone) -> None:
    """Raise `GeotuneError` if a bottleneck is wider than the narrowest block."""
    narrowest = min(block_widths(backbone))
    if width > narrowest:
        problem = f"the narrowest block of {backbone.name} has {narrowest} channels"
        raise option_error(option, width, f"{problem}; choose at most {narrowest}")


def zero_init(layer: Any) -> Any:
    """Set weight and bias of a layer to zero, so that training starts at the frozen features."""
    nn.init.zeros_(layer.weight)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ChannelAxis:
    """Where a layer's activations have their channels, which functions of `(..., C)` must know.

    A map `(B, C, C, w)` or `(B, C, h, C)` does not tell. The axis is learned from the first map
    that does, when `checked_encoder` tries the model on small images of two sizes, and kept.

    Attributes:
        last: whether 4-D activations are `(B, h, w, C)`, not `(B, C, h, w)`; None until it is
            known.
        doubtful: whether a map did not tell.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.last: bool | None = None
        self.doubtful = False

    def apply(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply a function of `(..., C)` to such a tensor, or to a map `(B, C, h, w)`."""
        if x.ndim != 4:
            return function(x)
        if self.last is None:
            first, last = x.shape[1] == self.channels, x.shape[-1] == self.channels
            self.doubtful = first and last
            if not self.doubtful:
                self.last = last
        if self.last is False:
            return function(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return function(x)
