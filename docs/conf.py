"""The site: ``make docs`` builds it from the pages and the docstrings, without network.

Sources are read from the top of the repository, so that a link between pages is the
same on the site and on the host of the code.
"""

import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE / "extensions"))

project = "jeff"
author = "The jeff authors"
release = tomllib.loads((_HERE.parent / "pyproject.toml").read_text())["project"][
    "version"
]
root_doc = "docs/index"
include_patterns = ["ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md", "docs/**"]
exclude_patterns = [
    *(".*", "build", "dist", "runs", "jeff*", "tests", "train_scripts", "benchmarks"),
    *("docs/_build", "docs/extensions"),
]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "reference",
    "names",
]
# Sections of a page may be linked to, as on the host of the code.
myst_heading_anchors = 4
default_role = "py:obj"
nitpicky = True
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
# One parameter a line, or shapes would run into each other.
python_maximum_signature_line_length = 72
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries = False

html_theme = "furo"
html_title = "jeff"
html_static_path = ["_static"]
html_css_files = ["jeff.css"]
templates_path = ["_templates"]
# The pages lie below docs/, as their sources do; the top leads there.
html_additional_pages = {"index": "redirect.html"}
html_copy_source = False
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """Put the pages of measurements below the page that sums them up.

    Args:
      app: the build.
    """
    app.connect("source-read", _with_contents)


def _with_contents(app: Sphinx, page: str, source: list[str]) -> None:
    # Not in the page itself, where the host of the code would show it as it is.
    if page == "docs/results":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\nresults/*\n```\n"
