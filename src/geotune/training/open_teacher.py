"""Load the teacher of a distillation, and check that it can teach a student."""

from __future__ import annotations

from torch import nn

from geotune.adapter_config import load_adapter_config
from geotune.config.distill_options import DistillOptions
from geotune.data.datamodule import DataModule
from geotune.errors import GeotuneError
from geotune.factory.build_model import BuiltModel, load_adapter
from geotune.feature_cache.teacher_cache import Teacher
from geotune.training.check_teacher import check_teacher_data
from geotune.training.run_dir import RunDir


def open_teacher(options: DistillOptions, student: BuiltModel, data: DataModule) -> Teacher:
    """Load a teacher whose recipe passed `check_teacher`.

    Raises `GeotuneError` if its data are not the student's, its files do not belong together, or it
    has fewer parameters than the student.
    """
    folder = RunDir(options.run)
    check_teacher_data(folder, data)
    built = load_adapter(folder.path)
    own, teachers = num_parameters(student.model), num_parameters(built.model)
    if own > teachers:
        raise GeotuneError(
            f"backbone.name {student.backbone.name}: the student has {own:,} parameters, more than "
            f"the {teachers:,} of its teacher {folder.path} ({built.backbone.name}); choose a "
            "smaller backbone or decoder, or train it without distill",
            code="student-too-large",
            key="backbone.name",
            file=folder.path,
        )
    adapter = load_adapter_config(folder.path).hash
    return Teacher(folder.path, adapter, built.model, built.task, options)


def num_parameters(model: nn.Module) -> int:
    """Number of a model's parameters, quantized weights included."""
    quantized = (b for name, b in model.named_buffers() if name.endswith(".held"))
    return sum(x.numel() for x in (*model.parameters(), *quantized))
