"""Read and download weights, and adapt an input convolution to other bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from geotune.backbones.bands import canonical_band
from geotune.backbones.checkpoint_keys import missing_keys, strip_prefix
from geotune.backbones.spec import BackboneSpec
from geotune.errors import GeotuneError, check_exists
from geotune.hub.connection import quiet_hub, reachable
from geotune.utils.text import similar_names

_RGB = ("B04", "B03", "B02")

_ADVICE = (
    "give a local file with backbone.weights=FILE, or use random weights with "
    "backbone.pretrained=false"
)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` file, or a PyTorch file without running its code.

    Raises `GeotuneError` if the file is missing, damaged or contains no tensors.
    """
    check_exists(path, "weights file", "backbone.weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise GeotuneError(
            f"{path}: cannot read weights ({type(error).__name__}: {str(error)[:200]}); "
            "expected a .safetensors file or a PyTorch file with tensors only",
            code="file-unreadable",
            key="backbone.weights",
            file=path,
        ) from error
    for key in ("state_dict", "model", "teacher", "encoder"):
        if isinstance(state, dict) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise GeotuneError(
            f"{path}: contains a {type(state).__name__}, expected a mapping of tensors",
            code="weights-mismatch",
            key="backbone.weights",
            file=path,
        )
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:  # one state dict per submodule
        tensors = {
            f"{part}.{k}": v
            for part, inner in state.items()
            if isinstance(inner, Mapping)
            for k, v in inner.items()
            if isinstance(v, Tensor)
        }
    if not tensors:
        raise GeotuneError(
            f"{path}: contains no tensors, expected the weights of a model",
            code="weights-mismatch",
            key="backbone.weights",
            file=path,
        )
    return tensors


def download_from_hub(spec: BackboneSpec, repository: str, file: str) -> tuple[Path, str]:
    """Download a file from the Hugging Face hub, or find it in its cache.

    Returns its path and a description of the source. Raises `GeotuneError` if no weights are
    published or the download fails.
    """
    if not repository:
        raise not_published_error(spec)
    from huggingface_hub import hf_hub_download

    try:
        with quiet_hub():
            return Path(hf_hub_download(repository, file)), f"hub: {repository}/{file}"
    except Exception as error:
        raise download_error(spec, f"{repository}/{file}", error) from error


def hub_state_dict(spec: BackboneSpec, repository: str, file: str) -> tuple[dict[str, Tensor], str]:
    """Tensors of `backbone.weights`, or of a file of the hub, and a description of the source."""
    if spec.weights is not None:
        return read_state_dict(spec.weights), str(spec.weights)
    path, source = download_from_hub(spec, repository, file)
    return read_state_dict(path), source


def download_url(spec: BackboneSpec, url: str) -> Path:
    """Download a file from a URL, or find it in the cache of `torch.hub`; returns its path.

    Raises `GeotuneError` if no weights are published or the download fails.
    """
    if not url:
        raise not_published_error(spec)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    if not path.is_file():
        try:
            if not reachable(url):
                raise OSError(f"{urlsplit(url).hostname} cannot be reached")
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except Exception as error:
            raise download_error(spec, url, error) from error
    return path


def url_state_dict(spec: BackboneSpec, url: str) -> tuple[dict[str, Tensor], str]:
    """Tensors of `backbone.weights`, or of a file at a URL, and a description of the source."""
    if spec.weights is not None:
        return read_state_dict(spec.weights), str(spec.weights)
    return read_state_dict(download_url(spec, url)), url


def load_published_weights(model: nn.Module, spec: BackboneSpec, url: str) -> str | None:
    """Load `backbone.weights`, or the file at a URL; returns the source, None without."""
    if not spec.loads_weights:
        return None
    state, source = url_state_dict(spec, url)
    load_weights(model, state, source, spec.name)
    return source


def encoder_state(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """The tensors below the first of `prefixes` that occurs, without it; else the whole state."""
    for prefix in prefixes or ("encoder.",):
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner:
            return inner
    return state


def not_published_error(spec: BackboneSpec) -> GeotuneError:
    """The error for a model without published weights."""
    return GeotuneError(
        f"backbone.name {spec.name}: no pretrained weights are published; {_ADVICE}",
        code="weights-unavailable",
        key="backbone.weights",
    )


def download_error(spec: BackboneSpec, source: str, error: Exception) -> GeotuneError:
    """The error for weights whose download failed."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return GeotuneError(
        f"backbone.name {spec.name}: cannot download the pretrained weights ({source}): "
        f"{reason[0][:200]}; without internet access, {_ADVICE}",
        code="weights-unavailable",
        key="backbone.weights",
    )


def fill_missing_norm(state: dict[str, Tensor], model: nn.Module) -> tuple[str, ...]:
    """Add the model's initial final norm to weights published without one; returns notes."""
    missing = [key for key in ("norm.weight", "norm.bias") if key not in state]
    own = model.state_dict()
    if len(missing) < 2 or missing[0] not in own:
        return ()
    state.update({key: own[key] for key in missing})
    return ("the weights have no final norm: it is initialised with scale 1 and shift 0",)


def load_weights(
    model: nn.Module, state: Mapping[str, Tensor], source: str, model_name: str
) -> None:
    """Load weights into a model and ignore additional keys, such as those of a head.

    As in PyTorch's strict loading, `num_batches_tracked` of batch norm may be missing.

    Raises `GeotuneError` that lists missing keys and shape mismatches.
    """
    own = model.state_dict()
    state = strip_prefix(state, own)
    missing = missing_keys(state, own)
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or shapes:
        problems = []
        if missing:
            near = similar_names(missing[0], state)
            hint = f" (it has {near[0]})" if near else ""
            problems.append(f"{len(missing)} keys are missing: {', '.join(missing[:5])}{hint}")
        for key in shapes[:5]:
            problems.append(f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}")
        raise GeotuneError(
            f"{source}: weights do not match {model_name}: {'; '.join(problems)}; use a "
            "checkpoint of that model",
            code="weights-mismatch",
            key="backbone.weights",
        )
    model.load_state_dict({key: state.get(key, tensor) for key, tensor in own.items()})


def adapt_input_conv(weight: Tensor, bands: Sequence[str]) -> tuple[Tensor, str | None]:
    """Adapt the first convolution `(D, 3, k, k)` of an RGB model to other bands.

    Bands named red, green or blue (or B04, B03, B02) get that channel's weights, others the mean
    of the three; all are scaled by 3 / number of bands, which preserves the response to a grey
    image. Returns `(D, len(bands), k, k)` and a note for the user; the note is None for the bands
    red, green, blue, whose weights are unchanged.
    """
    channels = [_rgb_channel(band) for band in bands]
    if channels == [0, 1, 2]:
        return weight, None
    if len(bands) == weight.shape[1] and all(channel is None for channel in channels):
        return weight, (
            f"bands {', '.join(bands)} are used as red, green, blue of the pretrained model, in "
            "this order"
        )
    mean = weight.mean(dim=1)
    columns = [mean if channel is None else weight[:, channel] for channel in channels]
    fitted = torch.stack(columns, dim=1) * (weight.shape[1] / len(bands))
    averaged = [band for band, channel in zip(bands, channels, strict=True) if channel is None]
    note = f"the patch embedding was adapted to {len(bands)} bands"
    if averaged:
        note += f"; {', '.join(averaged)} initialised from the mean of red, green and blue"
    return fitted, note


def _rgb_channel(band: str) -> int | None:
    name = canonical_band(band)
    return _RGB.index(name) if name in _RGB else None
