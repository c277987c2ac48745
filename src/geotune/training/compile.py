"""The blocks of a frozen backbone compiled by `torch.compile`, while it trains something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder


def check_compilable(encoder: Encoder) -> None:
    """Raise `GeotuneError` where a method changes the backbone or reads what is inside a block."""
    kind = encoder.method.name if encoder.method else "of your own"
    if not encoder.backbone_frozen:
        raise GeotuneError(
            f"train.compile: is for a backbone that never changes, but method.kind {kind} changes "
            "it; use train.compile=false, or a method beside the backbone, such as est"
        )
    if encoder.reader.internals_at or not encoder.backbone.blocks:
        raise GeotuneError(
            f"train.compile: {encoder.backbone.name} with method.kind {kind} has no blocks that "
            "can be compiled whole; use train.compile=false"
        )


@contextmanager
def compiled_blocks(
    encoder: Encoder,
    device: torch.device,
    on_message: Callable[[str], None],
    backend: str = "inductor",
) -> Iterator[None]:
    """While it is open, the backbone's blocks run compiled, one by one.

    Their hooks, names and tensors stay as they are. Where nothing can be compiled on `device` they
    run as ever, and `on_message` gets a line that says so.
    """
    blocks = encoder.backbone.blocks
    try:  # now: a block would fail in the middle of a step
        torch.compile(torch.square, backend=backend)(torch.zeros(8, device=device))
    except Exception as error:  # of whatever kind a compiler's failure is
        why = str(error).strip().partition("\n")[0]
        on_message(
            f"note: train.compile: nothing can be compiled here ({why}); the backbone runs as it is"
        )
        blocks = []
    for block in blocks:
        block.forward = torch.compile(block.forward, backend=backend)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own is seen again
