"""Configuration of the documentation; `make docs` builds it offline, warnings as errors."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]
# The notebooks' processes import what lies here, and on shared cores more threads are slower.
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pretzel  # noqa: E402

project = "Pretzel"
author = "the Pretzel contributors"
project_copyright = author
release = version = pretzel.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "generated_reference",
]
exclude_patterns = ["_build", "_extensions", "results/**"]
templates_path: list[str] = []
html_theme = "furo"
html_title = "Pretzel"
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"  # of generated_reference; MathJax would need a network

myst_enable_extensions = ["dollarmath", "deflist", "fieldlist", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # the code may have changed where the notebook has not
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # of one cell; seconds on a quiet machine
nb_merge_streams = True
nb_output_stderr = "remove"  # chatter of Lightning; an error fails the build

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False  # those of Lightning are not written for Napoleon
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # shapes such as "*b d" are no markup
