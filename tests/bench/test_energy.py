"""Energy counters in a folder with the layout of Linux."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geotune.bench.energy import EnergyMeter


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    for zone, joules in (("intel-rapl:0", 90), ("intel-rapl:0:0", 5), ("intel-rapl:1", 10)):
        count(tmp_path, zone, joules)
        (tmp_path / zone / "max_energy_range_uj").write_text("100000000")
    return tmp_path


def count(powercap: Path, zone: str, joules: float) -> None:
    (powercap / zone).mkdir(exist_ok=True)
    (powercap / zone / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")


def test_packages_are_summed_without_subzones(powercap: Path) -> None:
    meter = EnergyMeter(powercap)
    for zone, joules in (("intel-rapl:0", 97), ("intel-rapl:0:0", 9), ("intel-rapl:1", 13.5)):
        count(powercap, zone, joules)
    assert meter.joules() == pytest.approx(10.5)


def test_counter_wraps_around(powercap: Path) -> None:
    meter = EnergyMeter(powercap)
    count(powercap, "intel-rapl:0", 4)
    assert meter.joules() == pytest.approx(14)


def test_unreadable_counters_give_none(powercap: Path, tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path / "none").joules() is None
    meter = EnergyMeter(powercap)
    (powercap / "intel-rapl:1" / "energy_uj").write_text("denied")
    assert meter.joules() is None


class Nvml(SimpleNamespace):
    """A fake `pynvml` with given counters, in millijoules."""

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


@pytest.mark.parametrize("gpu", [None, "no driver", "no GPU", "a GPU that does not count"])
def test_gpu_without_counter_gives_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: str | None
) -> None:
    counters = {"no driver": None, "no GPU": [], "a GPU that does not count": [None]}
    module: Any = None if gpu is None else Nvml(counters=counters[gpu])
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert EnergyMeter(tmp_path).joules() is None


def test_gpu_energy_is_added(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml(counters=[1000, 5000])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = EnergyMeter(powercap)
    nvml.counters = [2500, 6000]
    count(powercap, "intel-rapl:1", 11)
    assert meter.joules() == pytest.approx(1.5 + 1 + 1)
