"""Options of the decoders and detectors: the recipe's `decoder` section and the constructors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from geotune.config.base import OptionsModel, Registered, Share
from geotune.config.task_options import Level
from geotune.registry import DECODERS

NmsThreshold = Annotated[
    Share,
    Field(description="IoU with a better box of the same class above which a box is suppressed"),
]
Levels = Annotated[
    Literal["all", "last"],
    Field(description="feature maps to read: all, or the backbone's last"),
]


class DecoderOptions(OptionsModel):
    """Options that every decoder has.

    Attributes:
        level: what the decoder predicts for: every pixel, every object, or the image.
    """

    level: ClassVar[Level] = "pixel"

    kind: str = ""

    @property
    def reads_stem(self) -> bool:
        """Whether the decoder reads the maps of the stem; see `MethodOptions.stem_width`."""
        return True


class LinearOptions(DecoderOptions):
    """A 1x1 or a transposed convolution on the feature maps."""

    kind: Literal["linear"] = "linear"
    levels: Levels = "all"
    upsample: PositiveInt | Literal["stride"] = Field(
        default=1,
        description="kernel and stride of a transposed convolution from features to outputs, such "
        "as the patch size; stride: that of each map; 1: a 1x1 convolution",
    )

    @property
    def reads_stem(self) -> bool:
        """Only with all maps."""
        return self.levels == "all"


class FcnOptions(DecoderOptions):
    """A few convolutions at the finest resolution, or with upsampling before each of them."""

    kind: Literal["fcn"] = "fcn"
    channels: PositiveInt = Field(default=128, description="channels of the hidden convolutions")
    depth: PositiveInt = Field(default=2, description="number of hidden 3x3 convolutions")
    levels: Levels = "all"
    upsample: bool = Field(
        default=False,
        description="a transposed convolution doubles the size before each hidden convolution",
    )


class UnetOptions(DecoderOptions):
    """UNet decoder: from coarse to fine, with skip connections."""

    kind: Literal["unet"] = "unet"
    channels: list[PositiveInt] = Field(
        default=[256, 128, 64, 32, 16],
        min_length=1,
        description="channels of the blocks, coarse to fine; the last one repeats if needed",
    )


class UpernetOptions(DecoderOptions):
    """UPerNet decoder: pyramid pooling and a feature pyramid."""

    kind: Literal["upernet"] = "upernet"
    channels: PositiveInt = Field(default=128, description="channels of the convolutions")


class GlobalPoolOptions(DecoderOptions):
    """Global pooling and a linear layer, for predictions per image."""

    level: ClassVar[Level] = "image"

    kind: Literal["global_pool"] = "global_pool"
    pool: Literal["mean", "attention"] = Field(
        default="mean", description="how positions are pooled"
    )
    levels: Literal["last", "all"] = Field(
        default="all",
        description="feature maps to read: the encoder's last, or all but the stem's",
    )
    dropout: Share = Field(default=0.0, description="dropout probability before the linear layer")

    @property
    def reads_stem(self) -> bool:
        """No: its receptive field is too small for image-level classes."""
        return False


class ProbeOptions(DecoderOptions):
    """Options of classifiers that are fitted to the features of a frozen backbone."""

    levels: Levels = "all"
    max_samples: PositiveInt = Field(
        default=4096,
        description="training cells or images that it is fitted to, sampled by train.seed, evenly "
        "over the classes",
    )

    @property
    def reads_stem(self) -> bool:
        """No: a stem is trained."""
        return False


class LogisticOptions(ProbeOptions):
    """Logistic regression of each feature cell, fitted by scikit-learn."""

    kind: Literal["logistic"] = "logistic"
    C: PositiveFloat | None = Field(
        default=None,
        description="inverse strength of the L2 penalty; by default the best in validation",
    )


class KnnOptions(ProbeOptions):
    """The k nearest training cells of each feature cell."""

    kind: Literal["knn"] = "knn"
    neighbours: PositiveInt | None = Field(
        default=None, description="k; by default the best in validation"
    )


class PooledLogisticOptions(LogisticOptions):
    """Logistic regression of each image's mean features, fitted by scikit-learn."""

    level: ClassVar[Level] = "image"
    kind: Literal["pooled_logistic"] = "pooled_logistic"  # type: ignore[assignment]


class PooledKnnOptions(KnnOptions):
    """The k nearest training images by their mean features."""

    level: ClassVar[Level] = "image"
    kind: Literal["pooled_knn"] = "pooled_knn"  # type: ignore[assignment]


class DetectorOptions(DecoderOptions):
    """Options that every detector has.

    Attributes:
        oriented: whether it predicts oriented boxes.
    """

    level: ClassVar[Level] = "object"
    oriented: ClassVar[bool] = False

    channels: PositiveInt = Field(default=256, description="channels of every pyramid level")
    min_stride: PositiveFloat = Field(
        default=4.0, description="stride of the finest level in pixels; objects should be larger"
    )
    num_levels: PositiveInt = Field(default=5, description="minimum number of pyramid levels")
    score_threshold: Share = Field(default=0.05, description="minimum score of a detection")
    nms_threshold: NmsThreshold = 0.5
    max_detections: PositiveInt = Field(default=1000, description="detections per window")


class AnchorDetectorOptions(DetectorOptions):
    """Options of detectors with anchors."""

    anchor_size: PositiveFloat = Field(
        default=4.0, description="side of the smallest anchors of a level, in strides"
    )


class FasterRcnnOptions(AnchorDetectorOptions):
    """Faster R-CNN: horizontal boxes, two stages."""

    kind: Literal["faster_rcnn"] = "faster_rcnn"
    hidden: PositiveInt = Field(default=1024, description="hidden channels of the second stage")


class RetinanetOptions(AnchorDetectorOptions):
    """RetinaNet: horizontal boxes, one stage, with anchors."""

    kind: Literal["retinanet"] = "retinanet"


class FcosOptions(DetectorOptions):
    """FCOS: horizontal boxes, one stage, without anchors."""

    kind: Literal["fcos"] = "fcos"
    depth: PositiveInt = Field(default=4, description="hidden convolutions of each branch")
    nms_threshold: NmsThreshold = 0.6


class RotatedFcosOptions(DetectorOptions):
    """FCOS for oriented boxes: one stage, without anchors."""

    oriented: ClassVar[bool] = True

    kind: Literal["rotated_fcos"] = "rotated_fcos"
    depth: PositiveInt = Field(default=4, description="hidden convolutions of each branch")
    nms_threshold: NmsThreshold = 0.1


class OrientedRcnnOptions(AnchorDetectorOptions):
    """Oriented R-CNN: oriented boxes, two stages."""

    oriented: ClassVar[bool] = True

    kind: Literal["oriented_rcnn"] = "oriented_rcnn"
    hidden: PositiveInt = Field(default=1024, description="hidden channels of the second stage")
    nms_threshold: NmsThreshold = 0.1


if TYPE_CHECKING:
    DecoderSection = (
        LinearOptions
        | FcnOptions
        | UnetOptions
        | UpernetOptions
        | GlobalPoolOptions
        | LogisticOptions
        | KnnOptions
        | PooledLogisticOptions
        | PooledKnnOptions
        | FasterRcnnOptions
        | RetinanetOptions
        | FcosOptions
        | RotatedFcosOptions
        | OrientedRcnnOptions
    )
else:
    DecoderSection = Annotated[DecoderOptions, Registered(DECODERS)]
