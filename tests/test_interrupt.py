"""Ctrl+C on a terminal at any moment: one message, exit code 130, no crash."""

from __future__ import annotations

import math
import os
import pty
import random
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geotune.training.run_dir import RunDir

START = 90.0
"""Seconds to wait for the training to start, on a busy machine."""


INTERRUPTS = 8


def interrupt(command: Callable[[], None], delay: float) -> tuple[int, str]:
    """Run a command in a forked process on a terminal; Ctrl+C `delay` seconds into training.

    Returns the exit code and the output.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        # pytest has replaced the standard streams
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        code = 1
        try:
            command()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    output, pressed, deadline = b"", None, time.monotonic() + START
    while True:
        ready, _, _ = select.select([terminal], [], [], 0.02)
        if ready:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # the process ended
                break
            if not data:
                break
            output += data
        if pressed is None and b"epoch 1/" in output:
            pressed = time.monotonic() + delay
        if pressed is not None and time.monotonic() >= pressed:
            os.write(terminal, b"\x03")
            pressed = math.inf
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), output.decode(errors="replace")


def check_interrupted(code: int, output: str) -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert code == 130, f"exit code {code}: {text[-2000:]}"
    assert "Interrupted" in text and "Traceback" not in text
    line = next(line for line in text.splitlines() if "Interrupted" in line)
    assert line.strip().startswith("Interrupted"), "not on the line of the progress bar"


def test_interrupt_on_a_terminal_ends_with_a_message(
    tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """The command as a user starts it, with the interpreter's own end."""
    recipe = tiny_recipe({"train.epochs": 1000, "data.samples": 16})
    geotune = str(Path(sys.executable).parent / "geotune")
    code, output = interrupt(lambda: os.execv(geotune, [geotune, "fit", str(recipe)]), 0.3)
    check_interrupted(code, output)


@pytest.mark.slow
def test_interrupts_at_random_moments_never_crash(
    tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    import geotune.api.train_workflow  # noqa: F401  # once, before the processes are forked
    from geotune.cli import main

    recipe = tiny_recipe({"train.epochs": 1000, "data.samples": 16, "train.workers": 0})
    rng = random.Random(0)

    def command() -> None:
        sys.argv = ["geotune", "fit", str(recipe), "--overwrite"]
        main()

    for _ in range(INTERRUPTS):
        check_interrupted(*interrupt(command, rng.uniform(0, 1)))


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
