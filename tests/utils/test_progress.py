"""Bars on a terminal, lines in a file."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from geotune.utils import progress
from geotune.utils.progress import ProgressDisplay, loading_libraries


def display(*, terminal: bool) -> tuple[ProgressDisplay, Callable[[], str]]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100)
    return ProgressDisplay(console), text.getvalue


def test_in_a_file_a_line_follows_each_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.1)
    shown, text = display(terminal=False)
    with shown:
        shown("short", 0, 1)
        shown("short", 1, 1)
        shown("a [b]", 2, 10)
        shown("report", 0, 1)
        time.sleep(0.25)
        shown("report", 1, 1)
        shown("a [b]", 4, 10, 125.0)
        time.sleep(0.15)
    lines = text().splitlines()
    assert lines[:2] == ["a [b]: 2 of 10", "report"]
    assert lines[-1] == "a [b]: 4 of 10, 0:02:05 left" and "\r" not in text()


def test_a_command_in_a_file_that_ends_soon_writes_nothing() -> None:
    shown, text = display(terminal=False)
    with shown:
        shown("short", 0, 2)
    assert text() == ""


def test_on_a_terminal_bars_of_unfinished_phases_are_shown_and_removed() -> None:
    shown, text = display(terminal=True)
    with pytest.raises(KeyboardInterrupt), shown:
        shown("training", 1, 4, 60.0)
        for done in (0, 1, 0):  # two validations
            shown("validation", done, 1)
        assert shown._bars is not None
        assert [task.description for task in shown._bars.tasks] == ["training", "validation"]
        shown._bars.refresh()
        raise KeyboardInterrupt
    assert "training" in text() and "1/4" in text() and "0:01:00" in text()
    assert text().count("\x1b[?25l") == text().count("\x1b[?25h") == 1  # the cursor is back


def test_quiet_consoles_show_nothing() -> None:
    text = io.StringIO()
    with ProgressDisplay(Console(file=text, force_terminal=True, quiet=True)) as shown:
        shown("training", 1, 4)
    assert text.getvalue() == ""


def test_imports_are_a_phase_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_COUNTS", 0.01)
    seen: list[tuple[int, int]] = []
    with (
        pytest.raises(ImportError),
        loading_libraries(lambda phase, done, total, left=None: seen.append((done, total)), 10),
    ):
        time.sleep(0.1)
        raise ImportError
    assert seen[0] == (9, 10) and seen[-1] == (10, 10)
    assert (len(sys.modules), len(sys.modules) + 1) in seen  # more than expected
