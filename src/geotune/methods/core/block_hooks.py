"""Capture activations inside the backbone's blocks by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.backbones.blocks import from_tiles, no_spatial_tokens_error
from geotune.methods.core.reader import BlockActivations


@contextmanager
def capture_block_activations(
    backbone: Backbone, indices: Sequence[int]
) -> Iterator[dict[int, Callable[[Tensor], BlockActivations]]]:
    """Hook these blocks while the context is open.

    Yields a dict that fills while the backbone runs: once block `i` has produced tap `feature`,
    `captured[i](feature)` returns the block's activations.
    """
    captured: dict[int, Callable[[Tensor], BlockActivations]] = {}
    streams: dict[tuple[int, str], Tensor] = {}
    hooks: list[Any] = []

    def watch(index: int) -> None:
        block, parts = backbone.blocks[index], backbone.block_parts(index)

        def store(position: str) -> Callable[..., None]:
            def hook(_module: nn.Module, inputs: Any, named: Any) -> None:
                streams[index, position] = inputs[0] if inputs else named["x"]

            return hook

        def after(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            before, middle = streams.pop((index, "before")), streams.pop((index, "middle"), None)

            def activations(feature: Tensor) -> BlockActivations:
                def to_map(stream: Tensor) -> Tensor:
                    tiles = backbone.tokens_to_maps(index, stream).mean
                    stride = backbone.taps[index].stride  # the stream may have another one
                    rows, columns = (round(side / stride) for side in backbone.padded_size)
                    grid = feature.shape[-2] // rows, feature.shape[-1] // columns
                    return from_tiles(tiles, grid)

                def change(start: Tensor, end: Tensor) -> Tensor:
                    return to_map(end - start.reshape(end.shape))

                stream = to_map(before)
                if middle is not None:
                    return BlockActivations(stream, change(before, middle), change(middle, output))
                return BlockActivations(stream, None, change(before, output) if parts.mlp else None)

            captured[index] = activations

        hooks.append(block.register_forward_pre_hook(store("before"), with_kwargs=True))
        if parts.middle is not None:
            hooked = block.get_submodule(parts.middle)
            hooks.append(hooked.register_forward_pre_hook(store("middle"), with_kwargs=True))
        hooks.append(block.register_forward_hook(after))

    if indices and not (backbone.blocks and backbone.has_spatial_tokens):
        raise no_spatial_tokens_error(backbone.name, "reading block activations")
    try:
        for index in indices:
            watch(index)
        yield captured
    finally:
        for hook in hooks:
            hook.remove()
