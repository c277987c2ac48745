"""Compile the blocks of a frozen backbone with `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder


def check_compilable(encoder: Encoder) -> None:
    """Raise `GeotuneError` for a method that changes the backbone or reads inside of its blocks."""
    kind = encoder.method.name if encoder.method else "custom"
    if not encoder.backbone_frozen:
        raise GeotuneError(
            f"train.compile: needs a frozen backbone, but method.kind {kind} changes it; use "
            "train.compile=false or a method with a frozen backbone, such as est",
            code="settings-incompatible",
            key="train.compile",
        )
    if encoder.reader.internals_at or not encoder.backbone.blocks:
        raise GeotuneError(
            f"train.compile: {encoder.backbone.name} with method.kind {kind} has no blocks that "
            "can be compiled as a whole; use train.compile=false",
            code="settings-incompatible",
            key="train.compile",
        )


@contextmanager
def compiled_blocks(
    encoder: Encoder,
    device: torch.device,
    on_message: Callable[[str], None],
    backend: str = "inductor",
) -> Iterator[None]:
    """Run the backbone's blocks compiled, one by one, inside the context.

    Hooks, names and tensors of the blocks stay. If `device` cannot compile, the blocks run
    uncompiled and `on_message` receives a note.
    """
    blocks = encoder.backbone.blocks
    try:  # before training: a block would fail in the middle of a step
        torch.compile(torch.square, backend=backend)(torch.zeros(8, device=device))
    except Exception as error:  # compilers raise all kinds of errors
        reason = str(error).strip().partition("\n")[0]
        on_message(
            f"note: train.compile: torch.compile does not work here ({reason}); the backbone runs "
            "uncompiled"
        )
        blocks = []
    for block in blocks:
        block.forward = torch.compile(block.forward, backend=backend)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # uncovers the method of the class
