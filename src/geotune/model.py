"""The complete network: normalisation, encoder and decoder, for images of any size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.detectors.base import Detector
from geotune.methods.core.encoder import Encoder, encode_together, recompute_blocks
from geotune.types import Batch, FeatureMaps, Normalization, Sample
from geotune.utils.activation_checkpointing import recompute_stages
from geotune.utils.batch_norm import allow_single_values
from geotune.utils.feature_encoding import DecodedFeatures
from geotune.utils.memory_format import for_convolutions


class Model(nn.Module):
    """Maps raw pixel values to the outputs that a `Task` trains and postprocesses.

    Args:
        normalization: of the bands, in the order of the images' channels.
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
        if normalization.fill is None:
            fill = torch.tensor(encoder.backbone.mean_std[0])
        else:
            fill = (torch.tensor(normalization.fill, dtype=torch.float32) - offset) / scale
        self.register_buffer("fill", fill, persistent=False)
        allow_single_values(self)

    def forward(
        self,
        images: Tensor | Mapping[str, Tensor],
        *,
        time: Tensor | None = None,
        location: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
        targets: Any = None,
    ) -> Any:
        """Compute outputs `(B, K, H, W)`, `(B, K)` for whole images, or a `DetectorOutput`.

        Args:
            images: raw values `(B, C, H, W)`, NaN where invalid; with several dates or modalities
                as in `Backbone.forward`.
            time: as in `Backbone.forward`.
            location: as in `Backbone.forward`.
            features: encoded results of `Model.features` for these images; the backbone is skipped.
            targets: read by detectors only, which then return losses.
        """
        maps, size = self.encode(images, time=time, location=location, features=features)
        return self.decode(maps, size, targets)

    def encode(
        self,
        images: Tensor | Mapping[str, Tensor],
        *,
        time: Tensor | None = None,
        location: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
    ) -> tuple[FeatureMaps, tuple[int, int]]:
        """The feature maps that the decoder reads, and height and width of the images.

        Arguments as in `forward`.
        """
        x = self._normalized(images)
        decoded = None if features is None else DecodedFeatures(features)
        maps = self.encoder(x, time=time, location=location, features=decoded)
        return maps, (x.shape[-2], x.shape[-1])

    def decode(self, maps: FeatureMaps, size: tuple[int, int], targets: Any = None) -> Any:
        """The outputs of `forward` from the results of `encode`."""
        if isinstance(self.decoder, Detector):
            return self.decoder(maps, size, targets)
        return resize_outputs(self.decoder(maps), maps.image_size, size)

    def example(self, window: int) -> dict[str, Tensor]:
        """Random inputs of `forward` for one window, whose side is in pixels, on the CPU."""
        return self.encoder.backbone.example(window, window)

    def recompute(self, level: str) -> bool:
        """Recompute activations in the backward pass, see `train.activation_checkpointing`.

        Args:
            level: one of `RECOMPUTING`.

        Returns whether this recomputes more than before.
        """
        changed = recompute_stages(self)
        return (level == "all" and recompute_blocks(self.encoder)) or changed

    def features(
        self, images: Tensor | Mapping[str, Tensor], **metadata: Tensor
    ) -> dict[str, Tensor]:
        """`Encoder.features` of images as in `forward`."""
        return self.encoder.features(self._normalized(images), **metadata)

    def calibrate(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Calibrate the encoder with batches of inputs as in `forward`, before training."""
        self.encoder.calibrate(
            {**batch, "images": self._normalized(batch["images"])} for batch in batches
        )

    def calibrate_on(self, samples: Iterable[Sample]) -> None:
        """Calibrate with the first `calibration_samples` of the method's reader, one by one.

        Does nothing for a reader that is calibrated, such as one that starts from an adapter.
        """
        reader = self.encoder.reader
        count = reader.calibration_samples
        if count and not bool(getattr(reader, "fitted", False)):
            self.calibrate(Batch.from_samples([sample]).inputs for sample in islice(samples, count))

    def _normalized(self, images: Tensor | Mapping[str, Tensor]) -> Tensor:
        images = self.encoder.backbone.join(images)
        shape = (1, -1) + (1,) * (images.ndim - 2)
        x = (images - self.offset.view(shape)) / self.scale.view(shape)
        return for_convolutions(torch.where(torch.isnan(x), self.fill.view(shape), x))


def encode_models(
    models: Sequence[Model],
    images: Tensor | Mapping[str, Tensor],
    *,
    time: Tensor | None = None,
    location: Tensor | None = None,
) -> tuple[list[FeatureMaps], tuple[int, int]]:
    """`Model.encode` of models with one frozen backbone and normalisation, which run once."""
    x = models[0]._normalized(images)
    encoders = [model.encoder for model in models]
    maps = encode_together(encoders, x, time=time, location=location)
    return maps, (x.shape[-2], x.shape[-1])


def resize_outputs(outputs: Tensor, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The outputs of a decoder at the resolution of the images.

    Args:
        outputs: `(B, K, h, w)` of the padded images, or `(B, K)` of whole images, which stay.
        padded: height and width of the padded images.
        size: height and width of the images.

    Returns `(B, K, H, W)`.
    """
    if outputs.ndim == 2:
        return outputs
    if outputs.shape[-2:] != padded:
        outputs = F.interpolate(outputs, size=padded, mode="bilinear", align_corners=False)
    return outputs[..., : size[0], : size[1]]
