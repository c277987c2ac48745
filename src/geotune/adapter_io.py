"""Save and load adapters: the trained tensors, without the frozen backbone.

An adapter has two files: `adapter.safetensors` with the tensors and `adapter.json`, which describes
the model and contains a hash of the tensor file, so that files of different adapters are not mixed
up. Loading them cannot run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geotune.adapter_config import (
    ADAPTER_CONFIG,
    FORMAT,
    TENSORS,
    AdapterConfig,
    PredictionSettings,
)
from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError
from geotune.hub.manifest import file_hash
from geotune.methods.core.injection import is_inserted
from geotune.model import Model
from geotune.types import Normalization
from geotune.utils.atomic import replacing, write_atomically


def adapter_state(model: Model) -> dict[str, Tensor]:
    """All tensors that training may change: trainable parameters and updated buffers.

    Raises `GeotuneError` after `encoder.merge()`.
    """
    if model.encoder.merged:
        raise GeotuneError(
            "encoder.merge() has folded the trained weights into the backbone's own; save the "
            "adapter before merging",
            code="adapter-merged",
        )
    trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    persistent = set(model.state_dict())
    buffers = {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, module in model.named_modules()
        if not has_fixed_buffers(model, prefix, module)
        for name, buffer in module.named_buffers(recurse=False)
    }
    return trained | {name: buffer for name, buffer in buffers.items() if name in persistent}


def has_fixed_buffers(model: Model, name: str, module: nn.Module) -> bool:
    """Whether a module belongs to a backbone in evaluation mode and was not added by a method."""
    if name.partition(".")[0] == "teacher":
        return True
    if model.encoder.backbone_trains or is_inserted(module):
        return False
    # layers that a method shares with the backbone are named otherwise while it is set aside
    return name.startswith(("encoder.backbone.", "encoder.borrowed."))


def load_adapter_state(
    model: Model,
    state: Mapping[str, Tensor],
    source: str,
    *,
    expected_by: str = "adapter.json",
    advice: str = "the file was changed or written by another version",
) -> None:
    """Load an adapter's tensors. Raises `GeotuneError` if names or shapes differ.

    `expected_by` names what describes the model; the error ends with `advice`.
    """
    expected = adapter_state(model)
    differences = {
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
        "of another shape": [
            n for n in expected if n in state and expected[n].shape != state[n].shape
        ],
    }
    if any(differences.values()):
        listed = "; ".join(
            f"{k} {', '.join(names[:5])}" for k, names in differences.items() if names
        )
        raise GeotuneError(
            f"{source}: the tensors do not match the model in {expected_by}: {listed}; {advice}",
            code="adapter-mismatch",
            file=source,
        )
    model.load_state_dict(dict(state), strict=False)


def save_tensors(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors of any device to a `.safetensors` file, atomically and without copying them.

    `metadata` is text for the file's header.
    """
    with replacing(path) as incomplete:
        incomplete.touch()
        mode = incomplete.stat().st_mode  # as of other files; safetensors' are its owner's only
        try:
            save_file(
                {name: tensor.cpu().contiguous() for name, tensor in state.items()},
                incomplete,
                dict(metadata) if metadata else None,
            )
        except SafetensorError as error:  # of the disk; tensors are checked before
            raise OSError(str(error)) from error
        incomplete.chmod(mode)


def save_adapter(
    folder: Path,
    state: Mapping[str, Tensor],
    *,
    backbone: Backbone,
    normalization: Normalization,
    sections: Mapping[str, Any],
    prediction: PredictionSettings,
    version: str,
) -> int:
    """Write both files atomically. Returns the size of the tensor file in bytes."""
    base = {
        "name": backbone.name,
        "fingerprint": backbone.fingerprint,
        "source": backbone.source,
        "licence": backbone.licence,
    }
    config = AdapterConfig(base, normalization, dict(sections), prediction, version, hash="")
    return write_adapter(folder, state, config)


def write_adapter(folder: Path, state: Mapping[str, Tensor], config: AdapterConfig) -> int:
    """Write both files atomically, with the hash of the tensors' file instead of the config's.

    Returns the size of that file in bytes.
    """
    save_tensors(folder / TENSORS, state)
    normalization = config.normalization
    values = {
        "format": FORMAT,
        "geotune": config.geotune,
        "base": config.base,
        "bands": list(normalization.bands),
        "normalization": {
            "offset": list(normalization.offset),
            "scale": list(normalization.scale),
            "fill": normalization.fill and list(normalization.fill),
        },
        **config.sections,
        "prediction": config.prediction.model_dump(mode="json"),
        "hash": file_hash(folder / TENSORS),
    }
    write_atomically(folder / ADAPTER_CONFIG, json.dumps(values, indent=2).encode())
    return (folder / TENSORS).stat().st_size


def read_tensors(folder: Path, config: AdapterConfig) -> dict[str, Tensor]:
    """Read `adapter.safetensors`.

    Raises `GeotuneError` if it does not match the config's hash, or has a value that is not finite.
    """
    path = folder / TENSORS
    try:
        digest = file_hash(path)
        if digest != config.hash:
            raise GeotuneError(
                f"{path}: found hash {digest[:12]}, expected {config.hash[:12]} as in "
                f"{folder / ADAPTER_CONFIG}; copy both files again",
                code="adapter-mismatch",
                file=path,
            )
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise GeotuneError(
            f"{path}: cannot be read ({error}); copy the adapter again",
            code="adapter-invalid",
            file=path,
        ) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise GeotuneError(
                f"{path}: {name} has values that are not finite; its training diverged, or the "
                "file is not what was trained: leave this adapter out, or train it again at a "
                "lower train.lr",
                code="adapter-invalid",
                file=path,
            )
    return tensors


def check_base_model(backbone: Backbone, config: AdapterConfig, source: Path) -> None:
    """Raise `GeotuneError` if the adapter was trained on another backbone or other weights."""
    if backbone.fingerprint != config.base["fingerprint"]:
        raise GeotuneError(
            f"{source}: was trained on {config.base['name']} with weights "
            f"{config.base['fingerprint'][:12]} ({config.base['source']}), but found "
            f"{backbone.name} with weights {backbone.fingerprint[:12]} ({backbone.source}); use "
            "the same weights",
            code="adapter-base",
            file=source,
        )
