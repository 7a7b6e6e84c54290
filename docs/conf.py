"""Settings of the documentation site: `python -m sphinx -W docs build/docs`."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

project = "bertjax"
author = "the bertjax authors"
release = re.search(r'__version__ = "(.+)"', (HERE.parent / "bertjax/__init__.py").read_text()).group(1)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated", "markdown_docstrings"]
exclude_patterns = ["_ext"]

smartquotes = False
html_theme = "furo"
html_title = "bertjax"
html_static_path = ["_static"]
html_css_files = ["bertjax.css"]
html_show_sourcelink = False

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Returns", "Yields"]  # text, not "type: description"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
