"""Suppression whose result has the size of its input, so that shapes tell what follows."""

from __future__ import annotations

import torch
from torch import Tensor

from geotune.boxes.nms import nms


@torch.library.custom_op("geotune::survivors", mutates_args=())
def nms_keep_mask(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Which of boxes `(N, D)` stay, `(N)` bool, as `boxes.nms.nms` has it; `groups` `(N)` apart.

    It is an operator of its own because how many stay is in the values: on fake tensors, which have
    none, only the shape of this is asked.
    """
    stay = torch.zeros_like(scores, dtype=torch.bool)
    return stay.index_fill_(0, nms(boxes, scores, threshold, groups), True)


@nms_keep_mask.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)
