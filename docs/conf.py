"""The documentation site: `sphinx-build -W -c docs . build/site`, with `pip install -e ".[docs]"`.

Its sources are the pages of docs/ and the chapters as they are committed; no cell is run here.
"""

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from tgdt_mini import __version__ as release  # noqa: E402

project, author, html_title = "TGDT mini", "the authors of TGDT mini", f"TGDT mini {release}"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "data/*.md", "data/weights/**.md", "notebooks/*.ipynb"]
include_patterns += ["data/photographs/*.md"]
include_patterns += ["notebooks/assignments/**.md", "notebooks/assignments/release/*/*.ipynb"]
html_theme = "sphinx_book_theme"
html_static_path, html_css_files = ["site.css"], ["site.css"]

nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # tables in outputs, too
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
autodoc_default_options = {"members": True, "member-order": "bysource"}


def as_plain_text(app, what, name, obj, options, lines):
    """Docstrings are written for `help`: shown as they are, formulas and shapes line by line."""
    lines[:] = [".. code-block:: text", "", *(f"    {line}" for line in lines), ""]


def begin_at_the_index(app, error):
    """An index.html at the top, which leads to that of docs/."""
    page = '<meta http-equiv="refresh" content="0; url=docs/index.html">\n'
    if error is None:
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app):
    app.connect("autodoc-process-docstring", as_plain_text)
    app.connect("build-finished", begin_at_the_index)
