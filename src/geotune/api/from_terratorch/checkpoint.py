"""The backbone's weights of a TerraTorch checkpoint, as a file that a recipe can name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geotune
from geotune.adapter_io import save_tensors
from geotune.backbones.continued import describe_weights
from geotune.backbones.create import build_backbone
from geotune.backbones.weights import load_weights, read_state_dict
from geotune.config.backbone_options import BackboneOptions
from geotune.errors import GeotuneError
from geotune.utils.text import join_some, pluralize

if TYPE_CHECKING:
    from torch import Tensor

WRAPPED = "model.encoder.encoder.backbone.model."
"""Where the backbone is in a checkpoint with a method of geotune."""
PLAIN = ("model.encoder.", "encoder.")
"""Where it is in others."""


def extract_backbone(
    checkpoint: Path, out: Path, backbone: dict[str, Any], moments: Mapping[str, Sequence[float]]
) -> list[str]:
    """Write the backbone's weights, and check that they fit the backbone.

    Args:
        checkpoint: `.ckpt` of Lightning; only its tensors are read, no code runs.
        out: the `.safetensors` file.
        backbone: the recipe's section, without weights.
        moments: mean and standard deviation of each band, by which its images are normalised.

    Returns what is not taken over. Raises `GeotuneError` if the file is missing or damaged, holds
    more than tensors and plain values, or is of another model.
    """
    state = _read(checkpoint)
    wrapped = {n.removeprefix(WRAPPED): x for n, x in state.items() if n.startswith(WRAPPED)}
    own = wrapped or _plain_tensors(state)
    if not own:
        raise _error(checkpoint, "no tensors below model.encoder", "a checkpoint of TerraTorch")
    if any(".lora_" in name or "base_model." in name for name in own):
        raise _error(
            checkpoint,
            "a backbone with updates of peft (peft_config)",
            "plain weights; leave out --checkpoint and start from the published ones",
        )
    try:
        if wrapped:
            _write_wrapped(own, out, backbone, moments)
        else:
            save_tensors(out, {name: tensor.contiguous() for name, tensor in own.items()})
        build_backbone(BackboneOptions.model_validate({**backbone, "weights": out}))
    except GeotuneError as error:
        out.unlink(missing_ok=True)
        raise GeotuneError(
            f"{checkpoint}: its backbone does not fit {backbone['name']}: {error}",
            code=error.code,
            key="backbone.weights",
            file=checkpoint,
        ) from error
    others = {name.split(".")[1] for name in state if name.startswith("model.")} - {"encoder"}
    parts = sorted(others | ({"the method's modules"} if wrapped else set()))
    return [
        f"{checkpoint}: {pluralize(len(own), 'tensor')} of the backbone are in {out}; not taken "
        f"over, and trained from new weights: {join_some(parts) or 'nothing'}"
    ]


def _write_wrapped(
    state: dict[str, Tensor],
    out: Path,
    backbone: dict[str, Any],
    moments: Mapping[str, Sequence[float]],
) -> None:
    """Write weights whose names are those of geotune's backbone, in geotune's own format."""
    values = {**backbone, "pretrained": False}
    network = build_backbone(BackboneOptions.model_validate(values))
    base = network.fingerprint
    load_weights(network.model, state, str(out), network.name)
    mean, std = zip(*(moments.get(band, (0.0, 1.0)) for band in network.bands), strict=True)
    description = describe_weights(
        network,
        source="TerraTorch",
        base_fingerprint=base,
        method="full",
        offset=tuple(mean),
        scale=tuple(std),
        mean=tuple(mean),
        std=tuple(std),
        pixels=0,
        geotune=geotune.__version__,
    )
    copies = {name: tensor.detach().clone() for name, tensor in network.model.state_dict().items()}
    save_tensors(out, copies, description.as_header())


def _read(checkpoint: Path) -> dict[str, Tensor]:
    if not checkpoint.is_file():
        raise GeotuneError(
            f"--checkpoint {checkpoint}: file not found; check the path",
            code="file-missing",
            file=checkpoint,
        )
    try:
        return read_state_dict(checkpoint)
    except GeotuneError as error:
        raise GeotuneError(
            f"{error}; TerraTorch writes such a file as *_state_dict.ckpt",
            code=error.code,
            key="backbone.weights",
            file=checkpoint,
        ) from error


def _plain_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors below the first of `PLAIN`, without it and timm's module."""
    for prefix in PLAIN:
        own = {n.removeprefix(prefix): x for n, x in state.items() if n.startswith(prefix)}
        if own:
            return {name.removeprefix("_timm_module."): tensor for name, tensor in own.items()}
    return {}


def _error(checkpoint: Path, found: str, expected: str) -> GeotuneError:
    return GeotuneError(
        f"{checkpoint}: found {found}, expected {expected}",
        code="weights-mismatch",
        key="backbone.weights",
        file=checkpoint,
    )
