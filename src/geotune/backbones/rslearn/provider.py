"""From a name of rslearn's models to the file of its family."""

from __future__ import annotations

from geotune.backbones.base import Backbone
from geotune.backbones.request import Request
from geotune.backbones.rslearn.galileo import galileo_backbone


def rslearn_backbone(request: Request) -> Backbone:
    """Build a backbone such as `galileo_nano`."""
    return galileo_backbone(request)
