"""Execute the tutorials and store their outputs, which the documentation site shows.

    python scripts/run_tutorials.py [NAME ...]

Needs the extra `docs`, and `../shared/data` for the tutorials on real data. Tutorials run in a new
folder that has the repository's recipes, so that their output names no folder of this machine.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
MAX_PICTURE_BYTES = 200_000


def execute(path: Path, base: Path) -> Any:
    """Execute a notebook in `base/geotune`, which is created. Raises the error of a cell."""
    folder = base / "geotune"
    folder.mkdir()
    (folder / "recipes").symlink_to(ROOT / "recipes")
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (base / "shared").symlink_to(shared)
    notebook = nbformat.read(path, as_version=4)
    search = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(search),  # `geotune` of this environment
        "COLUMNS": "100",
        "TTY_COMPATIBLE": "0",  # no colours and progress bars, which ipykernel asks for
        "XDG_CACHE_HOME": str(base / "cache"),  # nothing that was read before
    }
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment)
    return notebook


def smaller_png(encoded: str) -> str:
    """A picture with a palette, in base64, of at most `MAX_PICTURE_BYTES`."""
    with Image.open(BytesIO(base64.b64decode(encoded))) as image:
        for colors in (256, 128, 64, 32):
            buffer = BytesIO()
            image.convert("RGB").quantize(colors).save(buffer, "png", optimize=True)
            if buffer.tell() <= MAX_PICTURE_BYTES:
                break
    return base64.b64encode(buffer.getvalue()).decode()


def stored(notebook: Any) -> Any:
    """The notebook without what differs between two equal executions or machines."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]  # progress
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller_png(output.data["image/png"])
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="tutorials, by default all")
    names = parser.parse_args().names or sorted(path.stem for path in TUTORIALS.glob("*.ipynb"))
    for name in names:
        path = TUTORIALS / f"{name}.ipynb"
        with TemporaryDirectory() as base:
            notebook = stored(execute(path, Path(base)))
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
