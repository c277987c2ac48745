"""A model sharded among two processes equals the unsharded model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("sharded_gradients.py")
CASES: list[dict[str, Any]] = [
    {"method": {"kind": "full"}},
    {"method": {"kind": "full"}, "train.activation_checkpointing": "all"},
    {"method": {"kind": "lora"}, "train.activation_checkpointing": "all"},
    {"method": {"kind": "lora", "frozen_precision": "int8"}},
    {
        "method": {"kind": "partial", "frozen_precision": "bf16"},
        "train.activation_checkpointing": "all",
    },
    {"method": {"kind": "adapter"}},
    {"method": {"kind": "aurora", "rank": 8}},  # parameters that blocks share
    {"method": {"kind": "rein"}},
    {"method": {"kind": "sherl"}, "train.activation_checkpointing": "all"},
    {"method": {"kind": "mpo"}},
    {"method": {"kind": "vpt"}},
    {"method": {"kind": "vit_adapter"}},
    {"method": {"kind": "sidetune"}},  # scalar parameters, like the gates of lst
    {"method": {"kind": "lst"}},
    {"method": {"kind": "e3va"}},
    {"method": {"kind": "dtl"}},
    {"method": {"kind": "dtl", "feedback_from": 1}},
    {"method": {"kind": "peft", "tuner": "vblora"}},  # parameters that blocks share
    {"method": {"kind": "est", "min_width": 8}, "train.activation_checkpointing": "all"},
    {"method": {"kind": "est", "min_width": 8}, "backbone.name": "timm/test_resnet"},
    {
        "method": {"kind": "e3va"},
        "backbone.name": "timm/test_convnext",
    },  # runs a layer of the backbone
]


@pytest.mark.slow
def test_sharded_gradients_and_outputs(tiny_values: Callable[..., dict[str, Any]]) -> None:
    """Gradients within 1e-5 of the largest, outputs within 1e-5; gathered weights are identical."""
    recipes = json.dumps([tiny_values(case) for case in CASES])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", str(SCRIPT), recipes],
        capture_output=True,
        text=True,
        timeout=500,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        },
    )
    assert done.returncode == 0, done.stderr
    for case, errors in zip(CASES, json.loads(done.stdout), strict=True):
        assert errors["gradients"] < 1e-5, (case, errors)
        assert errors["outputs"] < 1e-5, (case, errors)
        with_scalars = ("sidetune", "lst", "rein", "sherl")
        assert (errors["scalars"] > 0) == (case["method"]["kind"] in with_scalars)
