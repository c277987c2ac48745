"""Smaller weights of an ONNX file: half precision, or 8-bit integers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from geotune.export_formats.windows import Inputs

Precision = Literal["fp32", "fp16", "int8"]

TOLERANCE: Mapping[str, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}
"""Largest accepted difference from the run's own prediction, see `compare.largest_difference`."""

NORMALIZING = (
    "Sub", "Div", "IsNaN", "IsInf", "Where", "Equal", "Cast", "Pad", "Reshape", "Unsqueeze",
    "Shape", "Mod", "Gather", "ReduceMax", "Mul",
)  # fmt: skip
"""Operators before the first layer. They stay in single precision: raw values may exceed the range
of half precision."""


def to_half(path: Path) -> None:
    """Convert the weights and operators of a file to half precision; inputs and outputs stay."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(path)
    converted = convert_float_to_float16(
        model,
        keep_io_types=True,
        node_block_list=_before_first_layer(model.graph),
        op_block_list=["NonMaxSuppression", "RoiAlign", "Resize", "TopK", "GridSample", "Range"],
        disable_shape_infer=False,
    )
    path.write_bytes(converted.SerializeToString())


def to_int8(path: Path, calibration: Sequence[Inputs]) -> None:
    """Quantise convolutions and matrix products to 8 bits, with the ranges of some inputs.

    The ranges of activations are those that occur in `calibration`.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Windows(CalibrationDataReader):  # type: ignore[misc]
        """Passes the windows one by one."""

        def __init__(self) -> None:
            self.windows: Iterator[Inputs] = iter(calibration)

        def get_next(self) -> Any:
            """The next inputs; None at the end."""
            return next(self.windows, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            Windows(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        )


def _before_first_layer(graph: Any) -> list[str]:
    """Names of the nodes that only normalise the inputs."""
    reached = {value.name for value in graph.input}
    constants = {tensor.name for tensor in graph.initializer}
    names = []
    for node in graph.node:  # in the order of computation
        inputs = [name for name in node.input if name]
        known = all(name in reached or name in constants for name in inputs)
        if known and any(name in reached for name in inputs) and node.op_type in NORMALIZING:
            names.append(node.name)
            reached.update(node.output)
    return names
