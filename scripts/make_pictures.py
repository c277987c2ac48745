"""Make the pictures of the README and the documentation site from real outputs.

    python scripts/make_pictures.py

Run it from the repository. Trains `recipes/aerial.yaml` for about 20 minutes of one core, and
writes `docs/pictures/map.png`, an image of a held-out tile beside its labels and its map, and
`report.png`, the top of the run's report as Chromium shows it. Needs `../shared/data` and Chromium.
"""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from PIL import Image

import geotune

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
MAX_BYTES = 200_000
SCENE = "tile2_007"
OVERRIDES = [
    "train.epochs=14",
    "data.augment.rotate=30",
    "data.augment.scale=[0.75, 1.33]",
    "data.brightness=0.1",
]


def write_png(image: Image.Image, name: str) -> None:
    """Write a picture with a palette of 256 colours. Raises `ValueError` if it is large."""
    buffer = BytesIO()
    image.convert("RGB").quantize(256).save(buffer, "png", optimize=True)
    if buffer.tell() > MAX_BYTES:
        raise ValueError(f"{name}: {buffer.tell()} bytes, more than {MAX_BYTES}")
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / name).write_bytes(buffer.getvalue())


def draw_map(run: geotune.Run) -> None:
    """The image, the labels and the map of a test scene."""
    (scene,) = [one for one in geotune.open_scenes(run.recipe) if one.name == SCENE]
    figure = geotune.plot(scene, model=run.model())
    buffer = BytesIO()
    figure.savefig(buffer, dpi=75)
    write_png(Image.open(buffer), "map.png")


def draw_report(run: geotune.Run, folder: Path) -> None:
    """The top of the report."""
    browser = which("chromium") or which("google-chrome")
    if browser is None:
        print("report.png: kept, because neither chromium nor google-chrome was found")
        return
    shot = folder / "report.png"
    subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--window-size=1100,1100", f"--screenshot={shot}", run.report.resolve().as_uri(),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    write_png(Image.open(shot), "report.png")


def main() -> None:
    """Run the command."""
    with TemporaryDirectory() as folder:
        result = geotune.fit("recipes/aerial.yaml", OVERRIDES, run=Path(folder) / "aerial")
        geotune.test(result.run)
        run = result.load()
        draw_map(run)
        draw_report(run, Path(folder))


if __name__ == "__main__":
    main()
