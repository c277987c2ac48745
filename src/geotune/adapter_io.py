"""The adapter: what training changed and nothing else, with what it needs to be loaded safely.

Two files: `adapter.safetensors` holds tensors, `adapter.json` says what they belong to. Neither
can run code. The JSON carries a hash of the tensors' file, so that the two cannot be mixed up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from geotune.adapter_config import CARD, FORMAT, TENSORS, AdapterConfig
from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError
from geotune.methods.core.injection import is_inserted
from geotune.model import Model
from geotune.types import Normalization
from geotune.utils.atomic import write_atomically


def adapter_state(model: Model) -> dict[str, Tensor]:
    """Every tensor that training may have changed: trained parameters and moving buffers.

    Raises `GeotuneError` where what trained was merged into the backbone.
    """
    if model.encoder.merged:
        raise GeotuneError(
            "encoder.merge() has folded the trained weights into the backbone's own; save the "
            "adapter before merging",
            code="adapter-merged",
        )
    trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    kept = set(model.state_dict())
    moving = {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, module in model.named_modules()
        if not _stands_still(model, prefix, module)
        for name, buffer in module.named_buffers(recurse=False)
    }
    return trained | {name: buffer for name, buffer in moving.items() if name in kept}


def _stands_still(model: Model, name: str, module: nn.Module) -> bool:
    """Whether a module is of a backbone whose statistics never move, and no method put it in."""
    if model.encoder.backbone_trains or is_inserted(module):
        return False
    return name.startswith("encoder.backbone.")


def load_adapter_state(model: Model, state: Mapping[str, Tensor], source: str) -> None:
    """Put an adapter's tensors into a model of the same recipe.

    Raises `GeotuneError` where names or shapes differ.
    """
    own = adapter_state(model)
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = [n for n in own if n in state and own[n].shape != state[n].shape]
    if missing or unknown or other:
        parts = [
            f"{label} {', '.join(names[:5])}"
            for label, names in (
                ("missing", missing),
                ("unknown", unknown),
                ("of another shape", other),
            )
            if names
        ]
        raise GeotuneError(
            f"{source}: the tensors do not match the model in adapter.json: {'; '.join(parts)}; "
            "the file was changed or written by another version",
            code="adapter-mismatch",
            file=source,
        )
    model.load_state_dict(dict(state), strict=False)


def serialize_tensors(state: Mapping[str, Tensor]) -> bytes:
    """Tensors of any device as the content of a `.safetensors` file."""
    return save({name: tensor.cpu().contiguous() for name, tensor in state.items()})


def save_adapter(
    folder: Path,
    state: Mapping[str, Tensor],
    *,
    backbone: Backbone,
    normalization: Normalization,
    sections: Mapping[str, Any],
    version: str,
) -> int:
    """Write both files, each whole or not at all. Returns the bytes of the tensors' file."""
    data = serialize_tensors(state)
    card = {
        "format": FORMAT,
        "geotune": version,
        "base": {
            "name": backbone.name,
            "fingerprint": backbone.fingerprint,
            "source": backbone.source,
            "licence": backbone.licence,
        },
        "bands": list(normalization.bands),
        "normalization": {
            "offset": list(normalization.offset),
            "scale": list(normalization.scale),
        },
        **sections,
        "hash": hashlib.sha256(data).hexdigest(),
    }
    write_atomically(folder / TENSORS, data)
    write_atomically(folder / CARD, json.dumps(card, indent=2).encode())
    return len(data)


def read_tensors(folder: Path, card: AdapterConfig) -> dict[str, Tensor]:
    """Read `adapter.safetensors`. Raises `GeotuneError` where it is not the card's own."""
    path = folder / TENSORS
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != card.hash:
            raise GeotuneError(
                f"{path}: not the file that {folder / CARD} describes (hash {found[:12]}, "
                f"expected {card.hash[:12]}); copy both files again",
                code="adapter-mismatch",
                file=path,
            )
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise GeotuneError(
            f"{path}: cannot be read ({error}); copy the adapter again",
            code="adapter-invalid",
            file=path,
        ) from error


def check_base_model(backbone: Backbone, card: AdapterConfig, source: Path) -> None:
    """Raise `GeotuneError` where a backbone is not the one that the adapter was trained on."""
    if backbone.fingerprint != card.base["fingerprint"]:
        raise GeotuneError(
            f"{source}: was trained on {card.base['name']} with weights "
            f"{card.base['fingerprint'][:12]} ({card.base['source']}), but found {backbone.name} "
            f"with weights {backbone.fingerprint[:12]} ({backbone.source}); use the same weights",
            code="adapter-base",
            file=source,
        )
