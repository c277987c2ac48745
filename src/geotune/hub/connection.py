"""The connection to the hub: quiet, without long retries, with errors that say what to do."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from geotune.errors import GeotuneError

_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def reachable(url: str) -> bool:
    """Whether a host accepts connections within 5 s; assumed behind a proxy."""
    parts = urlsplit(url)
    if getproxies().get("https"):
        return True
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname, port), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def quiet_hub() -> Iterator[None]:
    """No log lines, bars only on a terminal; without internet access only cached files."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    loggers = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    offline = constants.HF_HUB_OFFLINE
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    if not reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    no_bars = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if no_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        if no_bars:
            enable_progress_bars()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def hub_errors(source: str, file: str = "") -> Iterator[None]:
    """Turn errors of the hub into a `GeotuneError` that names `source`, of which `file` is read."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GeotuneError:
        raise
    except GatedRepoError as error:
        raise _unauthorized(source, "access has to be granted") from error
    except RepositoryNotFoundError as error:
        raise GeotuneError(
            f"{source}: no such repository on the hub, or it is private; check the name, and "
            f"{_LOGIN} if it is private",
            code="hub-not-found",
        ) from error
    except RevisionNotFoundError as error:
        raise GeotuneError(
            f"{source}: the repository has no such revision; name a branch, tag or commit of it",
            code="hub-not-found",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise _unreachable(source) from error
    except EntryNotFoundError as error:
        raise GeotuneError(
            f"{source}: the repository has no {file or 'such file'}, so geotune push did not write "
            "it; name another one",
            code="hub-invalid",
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise _unauthorized(source, "the account may not do this") from error
        raise _unavailable(source, f"answers with status {status}", error) from error
    except Exception as error:  # each version of the library has its own errors of the network
        raise _unavailable(source, "fails", error) from error


def _unauthorized(source: str, reason: str) -> GeotuneError:
    return GeotuneError(
        f"{source}: not allowed, {reason}; {_LOGIN}, and ask for access on the repository's page",
        code="hub-unauthorized",
    )


def _unreachable(source: str) -> GeotuneError:
    """Without the text of the library, which takes `quiet_hub` for a setting of the user."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        problem = "HF_HUB_OFFLINE is set, and what is needed is not in the cache; unset it"
    else:
        mirror = " and HF_ENDPOINT" if os.environ.get("HF_ENDPOINT") else ""
        problem = (
            f"the hub at {constants.ENDPOINT} cannot be reached; check the internet access{mirror}"
        )
    return GeotuneError(
        f"{source}: {problem}, or use a local copy of the folder", code="hub-unavailable"
    )


def _unavailable(source: str, problem: str, error: Exception) -> GeotuneError:
    advice = "check the internet access"
    if "xet-" in str(error):  # the routes of Xet, which mirrors often lack
        advice = "if the server has no Xet storage, set HF_HUB_DISABLE_XET=1"
    return GeotuneError(
        f"{source}: the hub {problem} ({_first_line(error)}); {advice}, or use a local copy of "
        "the folder",
        code="hub-unavailable",
    )


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line] or [type(error).__name__]
    return lines[0][:200]
