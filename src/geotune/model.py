"""The whole network: normalisation, encoder, decoder; images of any size in, outputs out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.detectors.base import Detector
from geotune.methods.core.encoder import Encoder
from geotune.types import Batch, Normalization, Sample
from geotune.utils.feature_encoding import DecodedFeatures


class Model(nn.Module):
    """Raw pixel values in, what the task makes answers of out.

    Args:
        normalization: for the bands in the order of the images' channels.
        encoder: backbone with its method.
        decoder: built from the encoder's taps.
    """

    offset: Tensor
    scale: Tensor
    fill: Tensor

    def __init__(self, normalization: Normalization, encoder: Encoder, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        offset = torch.tensor(normalization.offset, dtype=torch.float32)
        scale = torch.tensor(normalization.scale, dtype=torch.float32)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        # missing pixels look like the mean of what the backbone was trained on
        means, _ = encoder.backbone.mean_std
        self.register_buffer("fill", torch.tensor(means), persistent=False)

    def forward(
        self,
        images: Tensor | Mapping[str, Tensor],
        *,
        time: Tensor | None = None,
        location: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
        targets: Any = None,
    ) -> Any:
        """Images `(B, C, H, W)` of raw values, NaN where there is no data, to `(B, K, H, W)`.

        A decoder that answers for the image as a whole makes them `(B, K)`.

        Dates, modalities, `time` and `location` as in `Backbone.forward`. With `features`, which
        are what `features` gave for these images as `hold` keeps it, the backbone does not run.

        A detector gives `Detected`. It alone reads `targets`, and has losses where there are some.
        """
        x = self._normalized(images)
        height, width = x.shape[-2:]
        kept = None if features is None else DecodedFeatures(features)
        maps = self.encoder(x, time=time, location=location, features=kept)
        if isinstance(self.decoder, Detector):
            return self.decoder(maps, (height, width), targets)
        outputs: Tensor = self.decoder(maps)
        if outputs.ndim == 2:
            return outputs
        if outputs.shape[-2:] != maps.image_size:
            outputs = F.interpolate(
                outputs, size=maps.image_size, mode="bilinear", align_corners=False
            )
        return outputs[..., :height, :width]

    def features(
        self, images: Tensor | Mapping[str, Tensor], **metadata: Tensor
    ) -> dict[str, Tensor]:
        """What `Encoder.features` gives for images as `forward` takes them."""
        return self.encoder.features(self._normalized(images), **metadata)

    def calibrate(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Show the encoder some inputs, as `forward` takes them, before training."""
        self.encoder.calibrate(
            {**batch, "images": self._normalized(batch["images"])} for batch in batches
        )

    def calibrate_on(self, samples: Iterable[Sample]) -> None:
        """Calibrate with as many of the samples, one by one, as the method's reader requests."""
        count = self.encoder.reader.calibration_samples
        if count:
            self.calibrate(Batch.from_samples([sample]).inputs for sample in islice(samples, count))

    def _normalized(self, images: Tensor | Mapping[str, Tensor]) -> Tensor:
        images = self.encoder.backbone.join(images)
        shape = (1, -1) + (1,) * (images.ndim - 2)
        x = (images - self.offset.view(shape)) / self.scale.view(shape)
        return torch.where(torch.isnan(x), self.fill.view(shape), x)
