"""Write docs/reference/errors.md from the error codes in src/geotune/errors.py.

python scripts/write_error_page.py
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "errors.md"
HEAD = """\
# Error codes

Problems that you can fix raise `geotune.GeotuneError`; its `code` is one of those below and stays
the same from release to release, while messages may improve. `key` and `file` name the recipe key
and the file, if there is one. With `--json` the commands print all of them; otherwise the code
follows the message. The commands exit with code 1 after an error and 130 after Ctrl+C.

Written by `python scripts/write_error_page.py`.
"""


def page(source: str) -> str:
    """The page for the text of errors.py: a table for each section of `ERROR_CODES`."""
    table = source.partition("ERROR_CODES: dict[str, str] = {\n")[2].partition("\n}\n")[0]
    parts = re.split(r"^    # --- (.+) ---$", table, flags=re.MULTILINE)[1:]
    text = HEAD
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        rows = re.findall(r'"([a-z0-9-]+)":\s*\(?\s*((?:"[^"]*"\s*)+)\)?,', body)
        if rows:
            text += f"\n## {title[0].upper()}{title[1:]}\n\n| code | meaning |\n|---|---|\n"
            for code, meaning in sorted(rows):
                words = "".join(re.findall(r'"([^"]*)"', meaning))
                text += f"| `{code}` | {words} |\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page((ROOT / "src" / "geotune" / "errors.py").read_text(encoding="utf-8")))
