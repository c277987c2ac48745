"""The time of a training, estimated from measured steps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from geotune.utils.text import duration, pluralize


@dataclass(frozen=True)
class TimeEstimate:
    """Estimated time of a training.

    Attributes:
        epochs: to train.
        windows: per epoch.
        steps: per epoch and process.
        seconds_per_step: measured, reading included.
        val_windows: per validation.
        validations: number of them.
        seconds_per_validation: from measured windows.
        cache_seconds: for computing the features of `train.cache`.
    """

    epochs: int
    windows: int
    steps: int
    seconds_per_step: float
    val_windows: int
    validations: int
    seconds_per_validation: float
    cache_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Of everything together."""
        training = self.epochs * self.steps * self.seconds_per_step
        return training + self.validations * self.seconds_per_validation + self.cache_seconds

    def __str__(self) -> str:
        cache = f"features {duration(self.cache_seconds)}; " if self.cache_seconds else ""
        return (
            f"{cache}{pluralize(self.windows, 'window')} in {pluralize(self.steps, 'step')} per "
            f"epoch, {self.seconds_per_step:.3g} s per step (measured); "
            f"{pluralize(self.val_windows, 'window')} per validation, "
            f"{duration(self.seconds_per_validation)} each of {self.validations}; "
            f"{pluralize(self.epochs, 'epoch')} in about {duration(self.seconds)}"
        )


def clock(seconds: float) -> str:
    """The local time in so many seconds, such as `14:32`, with the day if it is not today."""
    now = datetime.now().astimezone()
    then = now + timedelta(seconds=seconds)
    return then.strftime("%H:%M" if then.date() == now.date() else "%H:%M on %d %B")
