"""Every component that a recipe can name, where it is implemented, and which options it has.

Recipes, `geotune list`, the Python interface and the contract tests read these tables. Nothing is
imported before it is used. Register a component of your own before you call geotune, which imports
`geotune.config`; see `docs/how-to/extending.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Component:
    """A named component.

    Attributes:
        implementation: `module:name` of the class or function that is used.
        options: `module:name` of its options, an `OptionsModel` with the same `kind`. That module
            must not import torch.
        requires: what must be installed beside geotune, such as `geotune[rslearn]`.
    """

    implementation: str
    options: str = ""
    requires: str = ""

    def load(self) -> Any:
        """Import and return the implementation."""
        return find(self.implementation)

    def module(self) -> ModuleType:
        """Import and return the module of the implementation."""
        return import_module(self.implementation.partition(":")[0])

    def load_options(self) -> Any:
        """Import and return the options class."""
        return find(self.options)


def find(target: str) -> Any:
    """Import `module:name`."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _builtin(implementation: str, options: str = "", requires: str = "") -> Component:
    options = options and f"geotune.config.{options}"
    return Component(f"geotune.{implementation}", options, requires)


BACKBONE_PROVIDERS: dict[str, Component] = {
    "timm": _builtin("backbones.timm:timm_backbone"),
    "terratorch": _builtin(
        "backbones.terratorch.terratorch_provider:terratorch_backbone",
        requires="geotune[terratorch]",
    ),
    "torchgeo": _builtin(
        "backbones.torchgeo.torchgeo_provider:torchgeo_backbone", requires="geotune[torchgeo]"
    ),
    "rslearn": _builtin(
        "backbones.rslearn.rslearn_provider:rslearn_backbone", requires="geotune[rslearn]"
    ),
    "geotune": _builtin("backbones.embedded.convnext_mini:embedded_backbone"),
    "python": _builtin("backbones.custom:python_backbone"),
}
"""Providers of backbones, by the first part of `backbone.name`."""

METHODS: dict[str, Component] = {
    "full": _builtin("methods.selective:Full", "method_options:FullOptions"),
    "frozen": _builtin("methods.selective:Frozen", "method_options:FrozenOptions"),
    "bitfit": _builtin("methods.selective:BitFit", "method_options:BitFitOptions"),
    "norm": _builtin("methods.selective:Norm", "method_options:NormOptions"),
    "partial": _builtin("methods.selective:Partial", "method_options:PartialOptions"),
    "lora": _builtin("methods.lora:Lora", "method_options:LoraOptions"),
    "peft": _builtin("methods.hf_peft:Peft", "method_options:PeftOptions"),
    "ssl": _builtin("methods.subspace_scaling:Ssl", "method_options:SslOptions"),
    "ssb": _builtin("methods.subspace_scaling:Ssb", "method_options:SsbOptions"),
    "slr": _builtin("methods.slr:Slr", "method_options:SlrOptions"),
    "molora": _builtin("methods.molora:Molora", "method_options:MoloraOptions"),
    "aurora": _builtin("methods.aurora:Aurora", "method_options:AuroraOptions"),
    "mpo": _builtin("methods.mpo:Mpo", "method_options:MpoOptions"),
    "vpt": _builtin("methods.vpt:Vpt", "method_options:VptOptions"),
    "adapter": _builtin("methods.adapter:Adapter", "method_options:AdapterOptions"),
    "adaptformer": _builtin("methods.adaptformer:AdaptFormer", "method_options:AdaptFormerOptions"),
    "lorand": _builtin("methods.lorand:LoRand", "method_options:LoRandOptions"),
    "mona": _builtin("methods.mona:Mona", "method_options:MonaOptions"),
    "rein": _builtin("methods.rein:Rein", "method_options:ReinOptions"),
    "earth_adapter": _builtin(
        "methods.earth_adapter:EarthAdapter", "method_options:EarthAdapterOptions"
    ),
    "vit_adapter": _builtin("methods.vit_adapter:VitAdapter", "method_options:VitAdapterOptions"),
    "sidetune": _builtin("methods.sidetune:SideTune", "method_options:SideTuneOptions"),
    "lst": _builtin("methods.lst:Lst", "method_options:LstOptions"),
    "e3va": _builtin("methods.e3va:E3va", "method_options:E3vaOptions"),
    "dtl": _builtin("methods.dtl:Dtl", "method_options:DtlOptions"),
    "unipt": _builtin("methods.unipt:Unipt", "method_options:UniptOptions"),
    "sherl": _builtin("methods.sherl:Sherl", "method_options:SherlOptions"),
    "losa": _builtin("methods.losa:Losa", "method_options:LosaOptions"),
    "est": _builtin("methods.est:Est", "method_options:EstOptions"),
}
"""Tuning methods, by `method.kind`."""

DECODERS: dict[str, Component] = {
    "linear": _builtin("decoders.linear:Linear", "decoder_options:LinearOptions"),
    "fcn": _builtin("decoders.fcn:Fcn", "decoder_options:FcnOptions"),
    "unet": _builtin("decoders.unet:Unet", "decoder_options:UnetOptions"),
    "upernet": _builtin("decoders.upernet:Upernet", "decoder_options:UpernetOptions"),
    "global_pool": _builtin("decoders.global_pool:GlobalPool", "decoder_options:GlobalPoolOptions"),
    "logistic": _builtin(
        "decoders.probe:LogisticProbe", "decoder_options:LogisticOptions", "geotune[bench]"
    ),
    "knn": _builtin("decoders.probe:KnnProbe", "decoder_options:KnnOptions"),
    "pooled_logistic": _builtin(
        "decoders.probe:LogisticProbe", "decoder_options:PooledLogisticOptions", "geotune[bench]"
    ),
    "pooled_knn": _builtin("decoders.probe:KnnProbe", "decoder_options:PooledKnnOptions"),
    "faster_rcnn": _builtin(
        "detectors.faster_rcnn:faster_rcnn", "decoder_options:FasterRcnnOptions"
    ),
    "retinanet": _builtin("detectors.retinanet:Retinanet", "decoder_options:RetinanetOptions"),
    "fcos": _builtin("detectors.fcos:fcos", "decoder_options:FcosOptions"),
    "rotated_fcos": _builtin("detectors.fcos:fcos", "decoder_options:RotatedFcosOptions"),
    "oriented_rcnn": _builtin(
        "detectors.oriented_rcnn:oriented_rcnn", "decoder_options:OrientedRcnnOptions"
    ),
}
"""Decoders and detectors, by `decoder.kind`; called as `(taps, num_outputs, options)`."""

TASKS: dict[str, Component] = {
    "segment": _builtin("tasks.segment:Segment", "task_options:SegmentOptions"),
    "detect": _builtin("tasks.detect:Detect", "task_options:DetectOptions"),
    "classify": _builtin("tasks.classify:Classify", "task_options:ClassifyOptions"),
    "regress": _builtin("tasks.regress:Regress", "task_options:RegressOptions"),
    "density": _builtin("tasks.density:Density", "task_options:DensityOptions"),
    "reconstruct": _builtin("tasks.reconstruct:Reconstruct", "task_options:ReconstructOptions"),
}
"""Tasks, by `task.kind`; called as `(options)`."""

LABEL_READERS: dict[str, Component] = {
    "segment": _builtin("data.labels.open_labels:class_label_reader"),
    "regress": _builtin("data.labels.regression_labels:value_label_reader"),
    "density": _builtin("data.labels.density_labels:density_label_reader"),
}
"""What opens the labels of a scene, by `task.kind`; called as `(data options, task options)`."""

TASK_PAGES: dict[str, Component] = {
    "segment": _builtin("report.tasks.segment_page:PAGE"),
    "detect": _builtin("report.tasks.detect_page:PAGE"),
    "detect points": _builtin("report.tasks.detect_page:POINTS"),
    "classify": _builtin("report.tasks.classify_page:PAGE"),
    "classify several": _builtin("report.tasks.classify_page:MULTILABEL"),
    "regress": _builtin("report.tasks.regress_page:PAGE"),
    "density": _builtin("report.tasks.density_page:PAGE"),
    "reconstruct": _builtin("report.tasks.reconstruct_page:PAGE"),
}
"""What a task adds to the report, by `task.kind` and variant."""

SPLITTERS: dict[str, Component] = {
    "list": _builtin("data.splits.explicit:split_by_list", "split_options:ListSplitOptions"),
    "random": _builtin("data.splits.groups:split_at_random", "split_options:RandomSplitOptions"),
    "group": _builtin("data.splits.groups:split_by_group", "split_options:GroupSplitOptions"),
    "folds": _builtin("data.splits.folds:split_into_folds", "split_options:FoldSplitOptions"),
    "blocks": _builtin(
        "data.splits.spatial_blocks:split_by_blocks", "split_options:BlockSplitOptions"
    ),
    "date": _builtin("data.splits.temporal:split_by_date", "split_options:DateSplitOptions"),
    "column": _builtin("data.splits.explicit:split_by_column", "split_options:ColumnSplitOptions"),
    "published": _builtin(
        "data.published.published_split:split_published", "split_options:PublishedSplitOptions"
    ),
}
"""Splits of the data, by `data.split.kind`; called as `(scenes, options, failed=...)`."""

ANNOTATION_FORMATS: dict[str, Component] = {
    "coco": _builtin("data.annotations.coco_json:COCO"),
    "fair1m": _builtin("data.annotations.fair1m_xml:FAIR1M"),
    "voc": _builtin("data.annotations.voc_xml:VOC"),
    "vector": _builtin("data.annotations.vector_file:VECTOR"),
    "points": _builtin("data.annotations.points_csv:POINTS"),
    "nwpu": _builtin("data.annotations.nwpu_txt:NWPU"),
    "yolo": _builtin("data.annotations.yolo_txt:YOLO"),
    "dota": _builtin("data.annotations.dota_txt:DOTA"),
}
"""Formats of object labels, by `data.format`; the first that matches a file is its format."""
