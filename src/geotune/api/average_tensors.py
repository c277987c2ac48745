"""Average the tensors of adapters: products of factors, batch norm, and all others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

DOWN, UP = ".lora_A.", ".lora_B."
"""In the names of the factors of an update `B A`: peft's, of linear layers and convolutions."""

SCALES = ".lora_E."
"""In the name of AdaLoRA's singular values: its update is `B (E A)`."""


def average_states(
    states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The average of the tensors, and what the rank lost of each low-rank update."""
    mean, lost = {}, {}
    for name, first in states[0].items():
        if name in mean:
            continue
        tensors = [state[name] for state in states]
        if DOWN in name and (up := name.replace(DOWN, UP)) in states[0]:
            ups = [state[up] for state in states]
            if (scale := name.replace(DOWN, SCALES)) in states[0]:
                tensors = [a * state[scale] for a, state in zip(tensors, states, strict=True)]
                mean[scale] = torch.ones_like(states[0][scale])
            mean[name], mean[up], lost[name] = average_products(tensors, ups, shares)
        elif name.endswith("num_batches_tracked"):
            mean[name] = torch.stack(tensors).sum(0)
        elif name.endswith("running_var"):
            centres = [state[name.removesuffix("var") + "mean"] for state in states]
            mean[name] = pooled_variance(tensors, centres, shares)
        elif first.is_floating_point():
            mean[name] = weighted_mean(tensors, shares)
        else:  # counters and indices, which training does not change
            mean[name] = first
    return {name: mean[name] for name in states[0]}, lost


def weighted_mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The weighted mean, summed in double precision."""
    total = sum(share * t.double() for share, t in zip(shares, tensors, strict=True))
    assert isinstance(total, Tensor)
    return total.to(tensors[0].dtype)


def pooled_variance(
    variances: Sequence[Tensor], means: Sequence[Tensor], shares: Sequence[float]
) -> Tensor:
    """Variance over all adapters' values: that within an adapter and that of their means.

    From deviations: a mean of squares would lose the variance of large values that differ little.
    """
    centre = weighted_mean([mean.double() for mean in means], shares)
    within = [v.double() + (m - centre) ** 2 for v, m in zip(variances, means, strict=True)]
    return weighted_mean(within, shares).to(variances[0].dtype)


def average_products(
    downs: Sequence[Tensor], ups: Sequence[Tensor], shares: Sequence[float]
) -> tuple[Tensor, Tensor, float]:
    """Factors `A` `(r, ...)` and `B` `(out, r / groups, ...)` of the best average of `B A`.

    In a grouped convolution, each group of outputs has its own share of the rank. Also returns the
    share of the norm that the rank lost.
    """
    groups = len(downs[0]) // ups[0].shape[1]
    by_group = (
        zip(*(factor.double().flatten(1).chunk(groups) for factor in factors), strict=True)
        for factors in (downs, ups)
    )
    parts = [_average_of_group(a, b, shares) for a, b in zip(*by_group, strict=True)]
    a, b = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    total = math.sqrt(sum(part[3] for part in parts))
    lost = math.sqrt(sum(part[2] for part in parts))
    return (
        a.reshape(downs[0].shape).to(downs[0].dtype),
        b.reshape(ups[0].shape).to(ups[0].dtype),
        lost / total if total else 0.0,
    )


def _average_of_group(
    downs: Sequence[Tensor], ups: Sequence[Tensor], shares: Sequence[float]
) -> tuple[Tensor, Tensor, float, float]:
    """Matrices `A` `(r, in)` and `B` `(out, r)` of the best rank-r average of `B A`.

    The products are never formed: with stacked factors `[w_k B_k] [A_k]`, QR decompositions of both
    reduce the decomposition to a matrix of side `K r`. Also returns the squared norm of what the
    rank lost, and that of the average.
    """
    rank = len(downs[0])
    stacked_a = torch.cat(tuple(downs))
    stacked_b = torch.cat([share * b for share, b in zip(shares, ups, strict=True)], dim=1)
    q_b, r_b = torch.linalg.qr(stacked_b)
    q_a, r_a = torch.linalg.qr(stacked_a.T)
    u, s, v = torch.linalg.svd(r_b @ r_a.T)
    kept = s[:rank].sqrt()
    count = len(kept)
    b = stacked_b.new_zeros(len(stacked_b), rank)
    a = stacked_a.new_zeros(rank, stacked_a.shape[1])
    b[:, :count] = q_b @ u[:, :count] * kept
    a[:count] = kept[:, None] * (q_a @ v.T[:, :count]).T
    return a, b, float(s[rank:].square().sum()), float(s.square().sum())
