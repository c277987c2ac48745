"""What the plain vision transformers of torchgeo have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from geotune.backbones.bands import canonical, wavelength
from geotune.backbones.base import Emit
from geotune.backbones.spec import BackboneSpec
from geotune.errors import GeotuneError


def run_blocks(
    x: Tensor,
    blocks: Sequence[nn.Module],
    norm: nn.Module | None,
    grid: tuple[int, int],
    emit: Emit,
    out_indices: set[int],
) -> Tensor:
    """Run tokens `(B, 1 + rows * columns, D)` through blocks and emit a map `(B, D, rows, columns)`
    of each; `norm` comes after the last. Returns the class token `(B, 1, D)`."""
    last = len(blocks) - 1
    for index, block in enumerate(blocks):
        x = block(x)
        if index == last and norm is not None:
            x = norm(x)
        if index in out_indices:
            emit(index, x[:, 1:].transpose(1, 2).reshape(len(x), -1, *grid))
    return x[:, :1]


def channel_ids(
    request: BackboneSpec, radar: Mapping[str, float], scale: float
) -> tuple[float, ...]:
    """What stands for each band: its centre wavelength in micrometres times `scale`, or what
    `radar` says.

    `backbone.wavelengths` comes before what a band's name says; it may name bands that are not
    used. Raises `GeotuneError` for a band of unknown wavelength, and for a wavelength that is none.
    """
    given = request.wavelengths
    wrong = [f"{b}: {given[b]:g}" for b in request.bands if not 0.1 <= given.get(b, 1) <= 100]
    if wrong:
        raise GeotuneError(
            f"backbone.wavelengths {', '.join(wrong)}: expected micrometres, from 0.1 to 100; "
            "red is about 0.665"
        )
    ids = []
    for band in request.bands:
        name = canonical(band)
        length = given.get(band, wavelength(band))
        if band not in given and name.upper() in radar:
            ids.append(radar[name.upper()])
        elif length is not None:
            ids.append(round(length * scale, 6))
        else:
            raise GeotuneError(
                f"backbone.bands: {request.name} cannot tell the wavelength of {band} from its "
                f"name; give it in micrometres with backbone.wavelengths={{{band}: ...}}, or name "
                f"the band as Sentinel-2 does, or {', '.join(radar)}"
            )
    return tuple(ids)
