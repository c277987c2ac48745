"""Pack the results of a suite, or unpack them, so that others can compute its page again.

    python scripts/pack_suite.py runs/bench/evidence benchmarks/results/suites/evidence
    python scripts/pack_suite.py --unpack benchmarks/results/suites/evidence runs/bench/evidence
    geotune bench recipes/suites/evidence.yaml --table-only

The archive `runs.tar.xz` has what the tables are computed from, of every run and trial: recipe,
metrics, history, the metric state of each test window, and what the run says of itself; no weights,
pictures or predictions. With the archive unpacked, `geotune bench` continues the suite, with the
same code only (`code` and `commit` of the rows). Beside it lie the rows, tables, figures and page.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

RESULTS = ("rows.jsonl", "table.md", "bench.html", "figures")
OF_RUNS = (
    "recipe.yaml", "asked.yaml", "run.json", "metrics.json", "history.csv", "adapter.json",
    "test_windows.npz",
)  # fmt: skip
ARCHIVE = "runs.tar.xz"


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same results give the same archive."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def pack(folder: Path, target: Path) -> None:
    """Copy the results of a suite's folder, and pack those of its finished runs."""
    target.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        source = folder / name
        if source.is_dir():
            shutil.copytree(source, target / name, dirs_exist_ok=True)
        else:
            shutil.copy(source, target / name)
    runs = sorted(
        path.parent for part in ("runs", "search") for path in folder.glob(f"{part}/**/run.json")
    )
    with tarfile.open(target / ARCHIVE, "w:xz", preset=9) as archive:
        for name in OF_RUNS:  # like beside like, which compresses best
            for run in runs:
                if (run / name).is_file():
                    archive.add(
                        run / name, str(run.relative_to(folder) / name), filter=_without_owner
                    )
    print(f"{len(runs)} runs, {(target / ARCHIVE).stat().st_size / 1e6:.2f} MB")


def unpack(target: Path, folder: Path) -> None:
    """Restore the folder of a suite."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(target / "rows.jsonl", folder)
    with tarfile.open(target / ARCHIVE) as archive:
        archive.extractall(folder, filter="data")


if __name__ == "__main__":
    flags = [text for text in sys.argv[1:] if text == "--unpack"]
    first, second = (Path(text) for text in sys.argv[1:] if text not in flags)
    (unpack if flags else pack)(first, second)
