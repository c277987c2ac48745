"""Progress bars on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


def progress_bar(console: Console) -> Progress:
    """A bar followed by a `note`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


@contextmanager
def scene_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """One bar per scene; yields a callback (scene, done, total)."""
    tasks: dict[str, TaskID] = {}
    with progress_bar(console) as progress:

        def on_progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total, note="")
            progress.update(tasks[name], completed=done, total=total)

        yield on_progress


@contextmanager
def count_progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a callback (done, total) whose bar is shown from the first to the last call.

    Another bar may therefore follow inside the context.
    """
    bars: list[tuple[Progress, TaskID]] = []

    def on_progress(done: int, total: int) -> None:
        if not bars:
            progress = progress_bar(console)
            bars.append((progress, progress.add_task(what, total=total, note="")))
            progress.start()
        progress, task = bars[0]
        progress.update(task, completed=done)
        if done >= total:
            progress.stop()

    try:
        yield on_progress
    finally:
        for progress, _ in bars:
            progress.stop()
