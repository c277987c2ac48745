"""Whether a file changed, without reading it."""

from __future__ import annotations

from os import stat_result


def describe_stat(stat: stat_result) -> tuple[int, int, int]:
    """Size of a file in bytes, and the times in ns at which its content and the file changed.

    A file that replaces another one, also through a link, may have its size and modification time
    (`cp -p`, archives), but not its change time.
    """
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
