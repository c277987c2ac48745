"""Energy by the machine's counters, in a folder laid out as Linux does it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geotune.bench.energy import EnergyWatch


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    for zone, joules in (("intel-rapl:0", 90), ("intel-rapl:0:0", 5), ("intel-rapl:1", 10)):
        count(tmp_path, zone, joules)
        (tmp_path / zone / "max_energy_range_uj").write_text("100000000")
    return tmp_path


def count(powercap: Path, zone: str, joules: float) -> None:
    (powercap / zone).mkdir(exist_ok=True)
    (powercap / zone / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")


def test_packages_add_up_and_their_parts_do_not_count_again(powercap: Path) -> None:
    watch = EnergyWatch(powercap)
    for zone, joules in (("intel-rapl:0", 97), ("intel-rapl:0:0", 9), ("intel-rapl:1", 13.5)):
        count(powercap, zone, joules)
    assert watch.joules() == pytest.approx(10.5)


def test_a_counter_that_began_again_goes_on(powercap: Path) -> None:
    watch = EnergyWatch(powercap)
    count(powercap, "intel-rapl:0", 4)
    assert watch.joules() == pytest.approx(14)


def test_what_cannot_be_read_is_not_guessed(powercap: Path, tmp_path: Path) -> None:
    assert EnergyWatch(tmp_path / "none").joules() is None
    watch = EnergyWatch(powercap)
    (powercap / "intel-rapl:1" / "energy_uj").write_text("denied")
    assert watch.joules() is None


class Nvml(SimpleNamespace):
    """Stands for `pynvml` on a machine with GPUs whose counters are given, in millijoules."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:
        if self.counters is None:
            raise self.NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.counters)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if self.counters[handle] is None:
            raise self.NVMLError("not supported")
        count: int = self.counters[handle]
        return count


@pytest.mark.parametrize("found", [None, "no driver", "no GPU", "a GPU that does not count"])
def test_without_a_gpu_that_counts_there_is_nothing_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    counters = {"no driver": None, "no GPU": [], "a GPU that does not count": [None]}
    module: Any = None if found is None else Nvml(counters=counters[found])
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert EnergyWatch(tmp_path).joules() is None


def test_gpus_add_to_the_packages(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml(counters=[1000, 5000])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    watch = EnergyWatch(powercap)
    nvml.counters = [2500, 6000]
    count(powercap, "intel-rapl:1", 11)
    assert watch.joules() == pytest.approx(1.5 + 1 + 1)
