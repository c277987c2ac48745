"""Ctrl+C on a terminal at any moment: one message, exit code 130, no crash."""

from __future__ import annotations

import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geotune.training.run_dir import RunDir

START = 90.0
"""Seconds to wait for the training to start, on a busy machine."""


def interrupt(recipe: Path, delay: float, after: bytes = b"epoch 1/") -> tuple[int, str]:
    """Train a recipe on a terminal; Ctrl+C `delay` seconds after a text, that of the first epoch.

    Returns the exit code and the output.
    """
    command = [str(Path(sys.executable).parent / "geotune"), "fit", str(recipe), "--overwrite"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    output, pressed, deadline = b"", None, time.monotonic() + START
    while True:
        ready, _, _ = select.select([ours], [], [], 0.02)
        if ready:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the process ended
                break
            if not data:
                break
            output += data
        if pressed is None and after in output:
            pressed = time.monotonic() + delay
        if pressed is not None and time.monotonic() >= pressed:
            os.killpg(process.pid, signal.SIGINT)  # as the terminal does
            pressed = math.inf
        if time.monotonic() > deadline:
            process.kill()
    os.close(ours)
    return process.wait(), output.decode(errors="replace")


def check_interrupted(code: int, output: str) -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert code == 130, f"exit code {code}: {text[-2000:]}"
    assert "Interrupted" in text and "Traceback" not in text
    line = next(line for line in text.splitlines() if "Interrupted" in line)
    assert line.strip().startswith("Interrupted"), "not on the line of the progress bar"


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param([0.3], id="once"),
        pytest.param([0.0, 0.45, 1.2], id="three times", marks=pytest.mark.slow),
    ],
)
def test_interrupt_on_a_terminal_ends_with_a_message(
    tiny_recipe: Callable[..., Path], moments: list[float]
) -> None:
    recipe = tiny_recipe({"train.epochs": 1000, "data.samples": 16})
    for moment in moments:
        check_interrupted(*interrupt(recipe, moment))


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(b"loading libraries", id="imports"),
        pytest.param(b"building the model", id="imports of torch"),
        pytest.param(b"validation", id="validation", marks=pytest.mark.slow),
    ],
)
def test_interrupt_in_other_phases(tiny_recipe: Callable[..., Path], after: bytes) -> None:
    check_interrupted(*interrupt(tiny_recipe({"train.epochs": 1000}), 0.2, after))


def test_another_recipe_may_use_the_folder_after_an_interrupt_in_the_first_epoch(
    tiny_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    from lightning.pytorch import Callback

    from geotune.api.fitting import fit
    from geotune.config import parse_recipe

    class Interrupt(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(parse_recipe(tiny_values()), run=run, callbacks=lambda: [Interrupt()])
    assert not RunDir(run).has_checkpoint
    other = parse_recipe(tiny_values({"train.epochs": 1, "train.lr": 1e-4}))
    assert fit(other, run=run).status == "trained"
