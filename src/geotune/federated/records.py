"""Adapters as Flower's records, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard

import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from geotune.adapter_config import ADAPTER_CONFIG, load_adapter_config
from geotune.adapter_io import read_tensors, write_adapter
from geotune.errors import GeotuneError

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
"""Names of the records of a message: Flower's own, so that its mods find them."""

ADAPTER = "adapter"
"""Entry of the configuration with the text of `adapter.json`."""

EPOCHS = "epochs"
"""Entry of the configuration with the epochs of a round."""

ROUND = "server-round"
"""Entry of the configuration with the number of the round, which Flower's strategies set."""

IMAGES = "num-examples"
"""Metric that weights a site in Flower's strategies."""


def is_count(value: object, least: int = 1) -> TypeGuard[int]:
    """Whether a value of a message or configuration is a whole number of `least` or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def adapter_records(folder: Path) -> RecordDict:
    """An adapter as a message's arrays and configuration.

    bfloat16 tensors become float32, because NumPy has no such type.
    """
    tensors = read_tensors(folder, load_adapter_config(folder))
    arrays = {
        name: tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        for name, tensor in tensors.items()
    }
    config = ConfigRecord({ADAPTER: adapter_text(folder)})
    return RecordDict({ARRAYS: ArrayRecord(arrays), CONFIG: config})


def adapter_text(folder: Path) -> str:
    """The text of `adapter.json`."""
    return (folder / ADAPTER_CONFIG).read_text(encoding="utf-8")


def write_received(folder: Path, content: RecordDict, sender: str) -> None:
    """Write the adapter of a message to a folder.

    Nothing of it is executed: the configuration is text that is checked, the tensors are numbers.

    Args:
        folder: receives `adapter.json` and `adapter.safetensors`.
        content: of the message.
        sender: for error messages.

    Raises `GeotuneError` if the message has no adapter, or an invalid one.
    """
    arrays, config = content.array_records.get(ARRAYS), content.config_records.get(CONFIG)
    text = None if config is None else config.get(ADAPTER)
    if not arrays or not isinstance(text, str):
        raise GeotuneError(
            f"the message of {sender} has no adapter (its records: {', '.join(content)}); the "
            "server and all sites need geotune's app of the same version",
            code="federation-message",
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
    write_adapter(folder, arrays.to_torch_state_dict(), load_adapter_config(folder))
