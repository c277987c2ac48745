"""Predictors whose models have the same frozen backbone share one pass of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from geotune.api.predictor import Predictor
from geotune.feature_cache.cache_key import backbone_dependencies
from geotune.inference.shared_pass import SharedPass


def share_backbones(predictors: Sequence[Predictor]) -> list[list[int]]:
    """Group predictors of one model each by their frozen backbone and normalisation.

    Those of a group hold the backbone of the first, so that it is in memory once. A backbone that
    trained, or has modules in its blocks, is in a group of its own.

    Returns the indices of each group.
    """
    groups: dict[str, list[int]] = {}
    for index, predictor in enumerate(predictors):
        encoder = predictor.built.model.encoder
        key = str(index)
        if encoder.backbone_frozen and len(predictor.adapters) == 1:
            key = json.dumps(backbone_dependencies(predictor.built.model), default=str)
        groups.setdefault(key, []).append(index)
        encoder.backbone = predictors[groups[key][0]].built.model.encoder.backbone
        encoder.reader.use_backbone(encoder.backbone)
    return list(groups.values())


@contextmanager
def shared_passes(groups: Sequence[Sequence[Predictor]]) -> Iterator[None]:
    """Inside the context, all predictors of a group predict each batch with one pass.

    Every predictor of a group must predict every batch.
    """
    groups = [group for group in groups if len(group) > 1]
    for group in groups:
        shared = SharedPass([each.built.model for each in group])
        for index, predictor in enumerate(group):
            predictor.encode = partial(shared.encode, index)
    try:
        yield
    finally:
        for group in groups:
            for predictor in group:
                predictor.encode = predictor.built.model.encode
