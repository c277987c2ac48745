"""Published weights, from a local file or from where torchgeo has them."""

from __future__ import annotations

from torch import Tensor, nn

from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import fetch_url, read_state


def published_state(request: BackboneSpec, url: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of `backbone.weights` or of `url`, and what to call their source."""
    if request.weights is not None:
        return read_state(request.weights), str(request.weights)
    path, source = fetch_url(request, url)
    return read_state(path), source


def without_norm(state: dict[str, Tensor], model: nn.Module) -> tuple[str, ...]:
    """Some published weights have no final norm: it starts as the network's own, and a note."""
    absent = [key for key in ("norm.weight", "norm.bias") if key not in state]
    own = model.state_dict()
    if len(absent) < 2 or absent[0] not in own:
        return ()
    state.update({key: own[key] for key in absent})
    return ("the weights have no final norm: it starts with scale 1 and shift 0",)
