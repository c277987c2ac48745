"""Assertions on errors by code and fields, so that sentences can improve without touching tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from geotune.errors import ERROR_CODES, GeotuneError


@contextmanager
def raises(
    code: str,
    *,
    key: str | None = None,
    file: str | Path | None = None,
    mentions: Sequence[object] = (),
) -> Iterator[pytest.ExceptionInfo[GeotuneError]]:
    """Expect a `GeotuneError` with this code.

    Args:
        code: one of `ERROR_CODES`.
        key: the recipe key that the error must name.
        file: the file that the error must name.
        mentions: values that the message must contain, such as a name or a number.
    """
    assert code in ERROR_CODES, f"errors.py has no code {code!r}"
    with pytest.raises(GeotuneError) as caught:
        yield caught
    error = caught.value
    assert error.code == code, f"{error.code}: {error}"
    if key is not None:
        assert error.key == key, f"{error.key}: {error}"
    if file is not None:
        assert error.file == Path(file), f"{error.file}: {error}"
    missing = [str(value) for value in mentions if str(value) not in str(error)]
    assert not missing, f"{error}: does not mention {', '.join(missing)}"
