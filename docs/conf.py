"""Sphinx configuration of the documentation site; `make docs` builds it."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))  # this tree, whatever copy is installed
sys.path.insert(0, str(Path(__file__).parent))

project = "geotune"
author = "The geotune authors"
try:
    release = metadata.version("geotune")
except metadata.PackageNotFoundError:  # built from a source tree that is not installed
    release = ""

extensions = [
    "generated_pages",  # tables from the program itself
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
default_role = "code"  # docstrings write `name`

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"  # `scripts/run_tutorials.py` executes them, a test checks that they run
suppress_warnings = ["myst.header"]  # pages that are generated start at any level

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "separated"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"geotune {release}".strip()
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
