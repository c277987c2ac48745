"""The notebooks of docs/tutorials run, and hold the outputs of a run."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
every_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


@every_tutorial
def test_outputs_are_stored_and_name_no_folder_of_a_machine(path: Path) -> None:
    code = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs: list[dict[str, Any]] = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output["output_type"] != "error"
        texts = [output.get("text", []), output.get("data", {}).get("text/plain", [])]
        assert not any(word in str(texts) for word in ("/tmp/", "/home/", "/root/", "Traceback"))


@pytest.mark.slow
@every_tutorial
def test_tutorials_run(path: Path, tmp_path: Path) -> None:
    for module in ("nbclient", "ipykernel"):
        pytest.importorskip(module, reason="needs the extra docs")
    script = runpy.run_path(str(ROOT / "scripts" / "run_tutorials.py"))
    if "../shared/data" in path.read_text("utf-8") and not (ROOT.parent / "shared/data").is_dir():
        pytest.skip("needs the real data in ../shared/data")
    short = tmp_path / path.name
    short.write_text(_with_fewer_epochs(path.read_text("utf-8")), "utf-8")
    script["execute"](short, tmp_path)


def _with_fewer_epochs(notebook: str) -> str:
    """The stored outputs are those of the whole trainings, which would take minutes here."""
    notebook = re.sub(r"(geotune fit [\w./-]+)", r"\1 train.epochs=1", notebook)
    return re.sub(r"(train\.epochs=|\\\"epochs\\\": )\d+", r"\g<1>1", notebook)
