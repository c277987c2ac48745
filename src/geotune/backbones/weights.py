"""Weights from a local file, and a patch embedding fitted to other bands."""

from __future__ import annotations

import difflib
import logging
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from geotune.backbones.bands import canonical
from geotune.backbones.spec import BackboneSpec
from geotune.errors import GeotuneError

_RGB = ("B04", "B03", "B02")

_ADVICE = (
    "give a local file with backbone.weights=FILE, or ask for random weights with "
    "backbone.pretrained=false"
)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from `.safetensors`, or from a PyTorch file without running its code.

    Raises `GeotuneError` where the file is missing, damaged or holds no tensors.
    """
    if not path.is_file():
        raise GeotuneError(
            f"{path}: no such weights file; give backbone.weights a file that is there"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise GeotuneError(
            f"{path}: cannot be read as weights ({type(error).__name__}: {str(error)[:200]}); "
            "expected a .safetensors file or a PyTorch file of tensors only"
        ) from error
    for key in ("state_dict", "model", "teacher", "encoder"):
        if isinstance(state, dict) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise GeotuneError(f"{path}: found {type(state).__name__}, expected a mapping of tensors")
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:  # a state dict for each part of the model
        tensors = {
            f"{part}.{k}": v
            for part, inner in state.items()
            if isinstance(inner, Mapping)
            for k, v in inner.items()
            if isinstance(v, Tensor)
        }
    if not tensors:
        raise GeotuneError(f"{path}: holds no tensors; expected the weights of a model")
    return tensors


def fetch(request: BackboneSpec, repository: str, file: str) -> tuple[Path, str]:
    """A file of the Hugging Face hub, from its cache where it is there, and what to call it.

    Raises `GeotuneError` where nothing is published, or where it cannot be had.
    """
    if not repository:
        raise GeotuneError(
            f"backbone.name {request.name}: no pretrained weights are published; {_ADVICE}"
        )
    from huggingface_hub import hf_hub_download

    try:
        with quiet_hub():
            return Path(hf_hub_download(repository, file)), f"hub: {repository}/{file}"
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise GeotuneError(
            f"backbone.name {request.name}: the pretrained weights ({repository}/{file}) cannot be "
            f"fetched: {reason[0][:200]}; without internet, {_ADVICE}"
        ) from error


def hub_state(request: BackboneSpec, repository: str, file: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of `backbone.weights` or of a file of the hub, and what to call their source."""
    if request.weights is not None:
        return read_state(request.weights), str(request.weights)
    path, source = fetch(request, repository, file)
    return read_state(path), source


def fetch_url(request: BackboneSpec, url: str) -> tuple[Path, str]:
    """A file from its address, from torch's hub cache where it is there, and what to call it.

    Raises `GeotuneError` where nothing is published, or where it cannot be had.
    """
    if not url:
        raise GeotuneError(
            f"backbone.name {request.name}: no pretrained weights are published; {_ADVICE}"
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    if not path.is_file():
        try:
            if not _reachable(url):
                raise OSError(f"{urlsplit(url).hostname} cannot be reached")
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise GeotuneError(
                f"backbone.name {request.name}: the pretrained weights ({url}) cannot be "
                f"fetched: {reason[0][:200]}; without internet, {_ADVICE}"
            ) from error
    return path, url


def _reachable(url: str) -> bool:
    """Whether a host answers within seconds; behind a proxy only the client itself can tell."""
    if getproxies().get("https"):
        return True
    try:
        socket.create_connection((urlsplit(url).hostname, 443), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def quiet_hub() -> Iterator[None]:
    """No retries where there is no internet (cached weights are still found), and no log lines."""
    from huggingface_hub import constants

    loggers = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    offline = constants.HF_HUB_OFFLINE
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    if not _reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def without_prefix(state: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Weights by a model's own names, where a checkpoint of another tool puts words before them.

    A training of TerraTorch, for example, has them all as `model.encoder.<name>`.
    """
    prefixes = {
        key[: len(key) - len(name)]
        for name in list(own)[:1]
        for key in state
        if key.endswith(f".{name}")
    }
    whole = [prefix for prefix in prefixes if all(prefix + name in state for name in own)]
    if len(whole) != 1 or all(name in state for name in own):
        return dict(state)  # of a student and its teacher, say, only the user can choose
    return {name: state[whole[0] + name] for name in own}


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str, model_name: str) -> None:
    """Load weights into a model; heads of the checkpoint that the model lacks are left out.

    Raises `GeotuneError` that lists the missing keys and those of another shape.
    """
    own = model.state_dict()
    state = without_prefix(state, own)
    missing = [key for key in own if key not in state]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or shapes:
        parts = []
        if missing:
            near = difflib.get_close_matches(missing[0], list(state), n=1)
            hint = f" (it has {near[0]})" if near else ""
            parts.append(f"{len(missing)} keys are missing: {', '.join(missing[:5])}{hint}")
        for key in shapes[:5]:
            parts.append(f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}")
        raise GeotuneError(
            f"{source}: these are no weights of {model_name}: {'; '.join(parts)}; "
            "give the weights of that very model"
        )
    model.load_state_dict({key: state[key] for key in own})


def fit_patch_embedding(weight: Tensor, bands: Sequence[str]) -> tuple[Tensor, str | None]:
    """Fit a first convolution `(D, 3, k, k)` of an RGB model to other bands.

    A band called red, green or blue (or B04, B03, B02) takes that channel's weights; any other
    takes the mean of the three; all are scaled by 3 / number of bands, so that the response to a
    grey image stays about what it was. Returns `(D, len(bands), k, k)` and a note for the user,
    or the weights as they are where the bands are red, green, blue.
    """
    channels = [_rgb_channel(band) for band in bands]
    if channels == [0, 1, 2]:
        return weight, None
    if len(bands) == weight.shape[1] and all(channel is None for channel in channels):
        return weight, (
            f"the {len(bands)} bands {', '.join(bands)} feed red, green, blue of the pretrained "
            "model in this order"
        )
    mean = weight.mean(dim=1)
    columns = [mean if channel is None else weight[:, channel] for channel in channels]
    fitted = torch.stack(columns, dim=1) * (weight.shape[1] / len(bands))
    by_mean = [band for band, channel in zip(bands, channels, strict=True) if channel is None]
    note = f"the patch embedding was fitted to {len(bands)} bands"
    if by_mean:
        note += f"; {', '.join(by_mean)} start from the mean of red, green and blue"
    return fitted, note


def _rgb_channel(band: str) -> int | None:
    name = canonical(band)
    return _RGB.index(name) if name in _RGB else None
