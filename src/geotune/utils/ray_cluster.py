"""Connect to a Ray cluster."""

from __future__ import annotations

import socket
from importlib import import_module
from typing import Any

from geotune.errors import GeotuneError

SECONDS = 10
"""How long the machine of an address may take to answer."""


def connect(address: str) -> Any:
    """The package `ray`, connected to a cluster: `auto`, `head:6379` or `ray://head:10001`.

    Raises `GeotuneError` if Ray is not installed or the cluster cannot be reached.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise GeotuneError(
            "--ray: Ray is not installed; pip install 'geotune[ray]', or omit --ray",
            code="dependency-missing",
            key="--ray",
        ) from error
    try:
        if not ray.is_initialized():
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise GeotuneError(
            f"--ray {address}: cannot connect to a cluster ({error}); start one with "
            "`ray start --head` and give its address",
            code="cluster-unreachable",
            key="--ray",
        ) from error
    return ray


def _knock(address: str) -> None:
    """Raise `OSError` if nobody listens at an address, which Ray takes minutes to find out."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
