"""An ONNX file: onnxruntime, QGIS, OpenCV and others run it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from geotune.errors import GeotuneError
from geotune.export_formats.program import quiet

OPSET = 18
"""Version of ONNX's operators: the first in which onnxscript writes them without conversion."""
MAX_BYTES = 2**31 - 2**20
"""A single ONNX file is a protocol buffer, which cannot be larger than 2 GiB."""


def write_onnx(
    program: ExportedProgram,
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    properties: Mapping[str, str],
    title: str,
    divisor: int | None = None,
) -> None:
    """Write a traced model as one ONNX file.

    Args:
        program: the traced model.
        path: the file.
        inputs: names of the inputs.
        outputs: names of the outputs.
        properties: the metadata of the file; values are JSON.
        title: a short description.
        divisor: height and width of the images may be any multiples of it, and the model fails
            for others; None for a fixed size.

    Raises `GeotuneError` if the format cannot hold the model.
    """
    size = sum(x.numel() * x.element_size() for x in program.state_dict.values())
    if size > MAX_BYTES:
        raise GeotuneError(
            f"--to onnx: the weights have {size / 2**30:.1f} GiB, and one ONNX file holds at most "
            "2 GiB; use --to pt2, or a smaller backbone (geotune distill)",
            code="export-unsupported",
        )
    try:
        with quiet():
            converted = torch.onnx.export(
                program,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                report=False,
            )
    except Exception as error:  # torch raises many kinds
        reason = [line for line in str(error).splitlines() if "<class" in line] or [str(error)]
        raise GeotuneError(
            f"--to onnx: an operator of the model has no counterpart in ONNX: {reason[0]}; use "
            "--to pt2",
            code="export-unsupported",
        ) from error
    assert converted is not None
    _store_declared_types(converted.model.graph)
    model = converted.model_proto
    model.producer_name = "geotune"
    model.doc_string = title
    del model.metadata_props[:]
    _name_dimensions(model.graph, divisor is not None)
    if divisor is not None:
        _require_multiples(model.graph, divisor)
    for node in [*model.graph.node, *(n for f in model.functions for n in f.node)]:
        del node.metadata_props[:]  # traces of the source code, with paths of this machine
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def _store_declared_types(graph: Any) -> None:
    """Convert constants to the type of their value.

    onnxscript folds constants with NumPy, which makes float64 of float32 where Python numbers are
    involved, as in tables of positions; onnxruntime refuses such a file.
    """
    import onnx_ir

    for value in graph.initializers.values():
        constant = value.const_value
        if value.dtype is not None and constant is not None and constant.dtype != value.dtype:
            array = constant.numpy().astype(value.dtype.numpy())
            value.const_value = onnx_ir.tensor(array, dtype=value.dtype, name=value.name)


def _name_dimensions(graph: Any, any_size: bool) -> None:
    """Name the dimensions that vary by what they are, in place of the names of the tracing."""
    dims = graph.input[0].type.tensor_type.shape.dim
    names = {dims[0].dim_param: "batch"}
    if any_size:
        names |= {dims[-2].dim_param: "height", dims[-1].dim_param: "width"}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def _require_multiples(graph: Any, divisor: int) -> None:
    """Let the model fail for images whose height or width is no multiple of `divisor`.

    It was traced for multiples: others would give maps of other pixels. ONNX has no assertion; the
    images are multiplied by the first element of `[1]`, at the remainder of their sides.
    """
    from onnx import TensorProto
    from onnx.helper import make_node, make_tensor

    images = graph.input[0].name
    for node in graph.node:
        node.input[:] = ["checked_images" if name == images else name for name in node.input]
    graph.initializer.extend(
        [
            make_tensor("side_divisor", TensorProto.INT64, [], [divisor]),
            make_tensor("side_accepted", TensorProto.FLOAT, [1], [1.0]),
        ]
    )
    name = f"height_and_width_must_be_multiples_of_{divisor}"
    checks = [
        make_node("Shape", [images], ["sides"], start=-2),
        make_node("Mod", ["sides", "side_divisor"], ["side_remainders"]),
        make_node("Gather", ["side_accepted", "side_remainders"], ["side_factors"], name=name),
        make_node("ReduceMax", ["side_factors"], ["side_factor"], keepdims=0),
        make_node("Mul", [images, "side_factor"], ["checked_images"], name="checked_images"),
    ]
    nodes = [*checks, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


class OnnxModel:
    """An ONNX file in onnxruntime, on the CPU."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Open a file; `threads`: 0 for the default of the machine.

        Raises `GeotuneError` if onnxruntime cannot run it.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no common base
            reason = str(error).replace(str(path), path.name)
            raise GeotuneError(
                f"--to onnx: onnxruntime {onnxruntime.__version__} does not run the written model: "
                f"{reason}; use --to pt2",
                code="export-unsupported",
            ) from error

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[Any]]:
        """The outputs, in order."""
        results: list[NDArray[Any]] = self.session.run(None, dict(inputs))
        return results

    @property
    def properties(self) -> dict[str, Any]:
        """The metadata of the file."""
        found = self.session.get_modelmeta().custom_metadata_map
        return {key: json.loads(value) for key, value in found.items()}


def require_onnx() -> None:
    """Raise `GeotuneError` unless the packages that write and run ONNX files are installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise GeotuneError(
            f"--to onnx: {error.name} is not installed; pip install 'geotune[export]', or use "
            "--to pt2",
            code="dependency-missing",
        ) from error
