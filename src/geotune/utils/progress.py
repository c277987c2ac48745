"""Progress of a command: bars on a terminal, lines in a file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

SECONDS_BETWEEN_LINES = 30.0
"""Longest silence of a command whose output is not a terminal."""
SECONDS_BETWEEN_COUNTS = 0.2
DATA_MODULES, ALL_MODULES = 1700, 4900
"""Modules in memory once the libraries for data, and those for training, are loaded: only for the
remaining time of imports."""


class OnProgress(Protocol):
    """Receives the progress of a phase, such as `features`; of imports from another thread."""

    def __call__(
        self, phase: str, done: int, total: int, seconds_left: float | None = None
    ) -> None:
        """Finished items of `total`, and the remaining seconds if the phase knows them better."""


def ignore_progress(phase: str, done: int, total: int, seconds_left: float | None = None) -> None:
    """Drop a progress report."""


@dataclass
class _Phase:
    """State of a phase; times by `time.monotonic`."""

    started: float
    first: int  # items that were finished when it started
    done: int
    total: int
    ends: float | None  # estimated

    def update(self, done: int, total: int, seconds_left: float | None) -> None:
        now = time.monotonic()
        if done < self.done:  # starts again, such as the next validation
            self.started, self.first = now, done
        self.done, self.total = done, total
        if seconds_left is None and done > self.first:
            seconds_left = (now - self.started) * (total - done) / (done - self.first)
        self.ends = None if seconds_left is None else now + seconds_left

    @property
    def remaining(self) -> str:
        """Time left, such as `0:02:10`; `-:--:--` if it is unknown."""
        if self.ends is None:
            return "-:--:--"
        return str(timedelta(seconds=round(max(0.0, self.ends - time.monotonic()))))

    @property
    def text(self) -> str:
        """Such as `: 3 of 9, 0:02:10 left`, with what is known of it; empty for a single item."""
        counts = "" if self.total == 1 else f"{self.done} of {self.total}"
        left = "" if self.ends is None else f"{self.remaining} left"
        known = ", ".join(filter(None, (counts, left)))
        return known and f": {known}"


class _Remaining(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["phase"].remaining, style="progress.remaining")


class ProgressDisplay:
    """Shows the phases of a command while they run; an `OnProgress` inside its context.

    On a terminal, each unfinished phase has a bar. Elsewhere a line reports the phase whenever
    nothing was written for `SECONDS_BETWEEN_LINES`.

    Args:
        console: to write to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phases: dict[str, _Phase] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars: Progress | None = None
        self._ended = threading.Event()
        self._lines: threading.Thread | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> ProgressDisplay:
        if self._console.quiet:
            return self
        if self._console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                _Remaining(),
                console=self._console,
                transient=True,
            )
            self._bars.start()
        else:
            self._lines = threading.Thread(target=self._write_lines, daemon=True)
            self._lines.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._bars is not None:
            self._bars.stop()
        if self._lines is not None:
            self._lines.join()

    def __call__(
        self, phase: str, done: int, total: int, seconds_left: float | None = None
    ) -> None:
        """Update a phase; it ends when all items are finished."""
        with self._lock:
            known = self._phases.get(phase)
            if known is None:
                known = _Phase(time.monotonic(), done, done, total, None)
                self._phases[phase] = known
            known.update(done, total, seconds_left)
            if done >= total:
                del self._phases[phase]
            if self._bars is not None:
                self._show(self._bars, phase, known)

    def _show(self, bars: Progress, name: str, phase: _Phase) -> None:
        if name not in self._tasks:
            self._tasks[name] = bars.add_task(escape(name), total=phase.total, phase=phase)
        bars.update(self._tasks[name], completed=phase.done, total=phase.total)
        if name not in self._phases:
            bars.remove_task(self._tasks.pop(name))

    def _write_lines(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LINES):
            with self._lock:
                lines = [escape(f"{name}{phase.text}") for name, phase in self._phases.items()]
            for line in lines:
                self._console.print(line)


@contextmanager
def loading_libraries(on_progress: OnProgress, modules: int) -> Iterator[None]:
    """Report imports inside the context as a phase; `modules` is their usual number at the end.

    A thread counts: one that imports holds locks which that of a bar may need to draw it.
    """
    phase, loaded = "loading libraries", threading.Event()

    def count() -> None:
        while not loaded.wait(SECONDS_BETWEEN_COUNTS):
            now = len(sys.modules)
            on_progress(phase, now, max(modules, now + 1))

    on_progress(phase, min(len(sys.modules), modules - 1), modules)
    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    try:
        yield
    finally:
        loaded.set()
        counter.join()
        on_progress(phase, modules, modules)
