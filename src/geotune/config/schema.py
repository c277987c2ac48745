"""The recipe: its sections, and the checks across them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from geotune.config.backbone_options import BackboneOptions
from geotune.config.base import OptionsModel, invalid
from geotune.config.data_options import DataSection, NamedOptions
from geotune.config.decoder_options import DecoderSection, DetectorOptions, ProbeOptions
from geotune.config.distill_options import DistillOptions
from geotune.config.method_options import MethodSection
from geotune.config.task_options import (
    ClassifyOptions,
    DetectOptions,
    ReconstructOptions,
    SegmentOptions,
    TaskSection,
)
from geotune.config.train_options import TrainOptions
from geotune.datasets.registry import get_dataset_info
from geotune.registry import DECODERS, TASKS


class ModelSections(OptionsModel):
    """The sections that describe a model, without its data and training."""

    backbone: BackboneOptions
    method: MethodSection
    decoder: DecoderSection
    task: TaskSection

    @model_validator(mode="after")
    def _decoder_fits_task(self) -> ModelSections:
        decoder, task = self.decoder, self.task
        if decoder.level != task.level:
            kinds = [
                kind
                for kind, component in DECODERS.items()
                if component.load_options().level == task.level
            ]
            raise invalid(
                "decoder.kind",
                f"{decoder.kind} predicts per {decoder.level}, but task.kind {task.kind} needs "
                f"predictions per {task.level}; use one of {', '.join(kinds)}",
            )
        if isinstance(decoder, ProbeOptions):
            _check_probe(decoder, self.method, task)
        if isinstance(task, DetectOptions) and isinstance(decoder, DetectorOptions):
            oriented = task.boxes == "oriented"
            if decoder.oriented != oriented:
                kinds = [
                    kind
                    for kind, component in DECODERS.items()
                    if getattr(component.load_options(), "oriented", None) == oriented
                ]
                raise invalid(
                    "decoder.kind",
                    f"{decoder.kind} predicts {'oriented' if decoder.oriented else 'horizontal'} "
                    f"boxes, but task.boxes is {task.boxes}; use one of {', '.join(kinds)}, or "
                    "change task.boxes",
                )
        return self


def _check_probe(decoder: ProbeOptions, method: MethodSection, task: TaskSection) -> None:
    """Raise `ValueError` for a classifier of features that change, or of anything but classes."""
    classes = isinstance(task, SegmentOptions) or (
        isinstance(task, ClassifyOptions) and not task.multilabel
    )
    if not classes:
        raise invalid(
            "decoder.kind",
            f"{decoder.kind} predicts one of several classes, found task.kind {task.kind}"
            + (" with task.multilabel" if isinstance(task, ClassifyOptions) else "")
            + "; use another decoder",
        )
    if method.kind != "frozen":
        raise invalid(
            "method.kind",
            f"{method.kind} trains, but decoder.kind {decoder.kind} is fitted to the features of a "
            "frozen backbone; use method.kind=frozen",
        )


class Recipe(ModelSections):
    """A whole recipe."""

    data: DataSection
    train: TrainOptions = TrainOptions()
    distill: DistillOptions | None = None

    def with_train(self, **options: Any) -> Recipe:
        """The recipe with other options of `train`."""
        return self.model_copy(update={"train": self.train.model_copy(update=options)})

    @model_validator(mode="before")
    @classmethod
    def _add_published_defaults(cls, values: Any) -> Any:
        return _with_published_defaults(values)

    @model_validator(mode="after")
    def _cache_fits_augmentation(self) -> Recipe:
        random = [
            f"data.augment.{name}"
            for name, value in self.data.augment
            if name != "flips" and value != type(self.data.augment).model_fields[name].default
        ]
        caches = {
            f"train.cache {self.train.cache}": (self.train.cache != "none", "use train.cache=none"),
            "distill": (self.distill is not None, "remove distill"),
        }
        for name, (used, advice) in caches.items():
            if used and random:
                raise invalid(
                    random[0],
                    f"changes every window in every epoch, but {name} needs a fixed set of windows "
                    f"(in up to eight orientations); remove {' and '.join(random)}, or {advice}",
                )
        return self

    @model_validator(mode="after")
    def _task_can_be_distilled(self) -> Recipe:
        if self.distill is not None and isinstance(self.decoder, ProbeOptions):
            kind = self.decoder.kind
            raise invalid("distill", f"found decoder.kind {kind}, which is fitted to labels alone")
        if self.distill is not None and isinstance(self.task, DetectOptions):
            raise invalid(
                "distill",
                "found task.kind detect; the outputs of a detector belong to its own anchors or "
                "proposals, so there is no distillation for detection; remove distill, or use "
                "another task",
            )
        if self.distill is not None and self.train.strategy == "fsdp":
            raise invalid(
                "train.strategy",
                "found fsdp, which distill does not support; a student fits on one device: use "
                "auto or ddp",
            )
        return self

    @model_validator(mode="after")
    def _data_fits_task(self) -> Recipe:
        data, task = self.data, self.task
        if isinstance(data, NamedOptions):
            if not isinstance(task, ReconstructOptions):
                check_published(data.name, task)
            return self
        kinds = ("images",) if task.level == "image" else task.data_kinds
        if data.kind not in kinds:
            hint = ""
            if task.kind == "detect":
                hint = " (folders of images too: scenes: images/*.png, labels: labels/{stem}.txt)"
            raise invalid(
                "data.kind",
                f"{data.kind} has no labels per {task.level} for task.kind {task.kind}; use "
                f"data.kind={' or '.join(kinds)}{hint}",
            )
        for key, kinds_of_task in _tasks_of_keys().items():
            field = type(data).model_fields.get(key)
            if field is None or task.kind in kinds_of_task:
                continue
            if getattr(data, key) != field.get_default(call_default_factory=True):
                raise invalid(
                    f"data.{key}",
                    f"only for task.kind {' or '.join(kinds_of_task)}, found {task.kind}",
                )
        return self

    @model_validator(mode="after")
    def _pretraining_is_possible(self) -> Recipe:
        task, train, backbone = self.task, self.train, self.backbone
        if not isinstance(task, ReconstructOptions):
            return self
        if self.distill is not None:
            raise invalid(
                "distill",
                "excludes task.kind reconstruct, whose teacher is the original backbone; remove "
                "distill",
            )
        if train.cache != "none":
            raise invalid(
                "train.cache",
                f"found {train.cache}, but task.kind reconstruct hides other patches of a window "
                "in every epoch, so that its features cannot be cached; use train.cache=none",
            )
        if train.strategy == "fsdp":
            raise invalid(
                "train.strategy",
                "fsdp does not support task.kind reconstruct, whose teacher shares weights with "
                "the backbone; use auto or ddp",
            )
        if self.method.kind == "frozen":
            raise invalid(
                "method.kind",
                "frozen trains nothing but the decoder of task.kind reconstruct, which is not "
                "used afterwards; use full, lora, est or another method",
            )
        if task.teacher_weight and not backbone.pretrained and backbone.weights is None:
            raise invalid(
                "task.teacher_weight",
                f"found {task.teacher_weight:g}, but the backbone has random weights "
                "(backbone.pretrained false), from which nothing can be learned; use "
                "task.teacher_weight=0, or pretrained weights",
            )
        if self.data.window is not None and (problem := task.window_problem(self.data.window)):
            raise invalid("task.patch", problem)
        return self


def files_of_recipe(recipe: ModelSections) -> dict[str, str]:
    """`backbone` and `method` that are Python files of the user, as `load_adapter` takes them."""
    named = {"backbone": recipe.backbone.name, "method": recipe.method.kind}
    return {key: name for key, name in named.items() if name.startswith("python/")}


def _tasks_of_keys() -> dict[str, list[str]]:
    """The kinds of task that can use a key of `data`, for keys that not all tasks can use."""
    tasks: dict[str, list[str]] = {}
    for kind, component in TASKS.items():
        for key in component.load_options().data_keys:
            tasks.setdefault(key, []).append(kind)
    return tasks


def _with_published_defaults(values: Any) -> Any:
    """Add the classes and the window of the recipe's published data set, if it has one.

    Raises a validation error for an unknown data set, and for a task that it has no labels for.
    """
    if not isinstance(values, Mapping):
        return values
    data, task = values.get("data"), values.get("task")
    if not isinstance(data, Mapping) or not isinstance(task, Mapping):
        return values
    if data.get("kind") != "named" or "name" not in data:
        return values
    info = get_dataset_info(str(data["name"]))
    window = info.window if data.get("window") is None else data["window"]
    if task.get("kind") == "reconstruct":  # needs no labels
        return {**values, "data": {**data, "window": window}}
    if task.get("kind") != info.task:
        raise invalid(
            "task.kind",
            f"found {task.get('kind')!r}, but data.name {info.name} is labelled for {info.task}",
        )
    classes = {"classes": list(info.classes)}
    return {**values, "data": {**data, "window": window}, "task": {**classes, **task}}


def check_published(name: str, task: TaskSection) -> None:
    """Raise a validation error if a task's classes or boxes are not the data set's."""
    info = get_dataset_info(name)
    classes = getattr(task, "classes", [])
    unknown = [c for c in classes if c not in info.classes]
    missing = [c for c in info.classes if c not in classes]
    if unknown or (missing and not isinstance(task, DetectOptions)):
        problem = f"has no {', '.join(unknown)}" if unknown else f"also has {', '.join(missing)}"
        raise invalid(
            "task.classes",
            f"data.name {name} {problem}; remove task.classes, or use {', '.join(info.classes)}",
        )
    if isinstance(task, DetectOptions):
        boxes = ["horizontal", "oriented"] if info.oriented else ["horizontal"]
        if task.boxes not in boxes:
            raise invalid(
                "task.boxes",
                f"found {task.boxes}, but data.name {name} has {' and '.join(boxes)} boxes",
            )
    if getattr(task, "multilabel", False):
        raise invalid("task.multilabel", f"images of data.name {name} have one class each")
