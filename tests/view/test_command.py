"""`geotune view` as a command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib import resources
from pathlib import Path

from helpers.view_folder import write_folder

SRC = Path(__file__).parents[2] / "src"


def test_it_prints_the_address_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "geotune", "view", str(folder), "--no-browser", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(SRC), "TMPDIR": str(tmp_path)},
        # a shell that starts the tests in the background has SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", address)
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"<title>geotune view</title>" in answer.read()
        process.send_signal(signal.SIGINT)
        rest, messages = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, rest) == (0, "")
    assert messages.splitlines()[-1] == "ended"
    assert "Traceback" not in messages
    assert [p for p in tmp_path.iterdir() if p.name.startswith("geotune-view")] == []


def test_the_map_library_comes_with_its_licence_and_version() -> None:
    static = resources.files("geotune.view") / "static" / "maplibre"
    version = re.search(r"MapLibre GL JS (\S+)", (static / "README.md").read_text(encoding="utf-8"))
    assert version is not None
    for name in ("maplibre-gl-csp.js", "maplibre-gl-csp-worker.js"):
        text = (static / name).read_text(encoding="utf-8")
        assert f"maplibre-gl-js/blob/v{version[1]}/LICENSE.txt" in text
    assert "MapLibre contributors" in (static / "LICENSE.txt").read_text(encoding="utf-8")
