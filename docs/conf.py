"""How the site is built: `make docs`."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
# Cells of notebooks run in processes of their own.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Their kernel has a profile of its own: no start-up files of the reader's, and errors alone in its log.
os.environ["IPYTHONDIR"] = str(ROOT / "docs" / "_build" / "ipython")
PROFILE = Path(os.environ["IPYTHONDIR"]) / "profile_default"
PROFILE.mkdir(parents=True, exist_ok=True)
(PROFILE / "ipython_kernel_config.py").write_text('get_config().Application.log_level = "ERROR"\n', encoding="utf-8")

project = "elbogap"
author = "The elbogap authors"
project_copyright = f"{author}, MIT licence"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "docs._ext.mathematics",
    "docs._ext.names",
    "docs._ext.printed",
    "docs._ext.reference",
    "docs._ext.gallery",
    "docs._ext.repository",
    "docs._ext.slides",
]
exclude_patterns = ["_build", "_ext", "_static", "**/.*", "**/__pycache__"]
nitpicky = False  # docs._ext.names looks after names of ours; those of torch are not linked
templates_path: list[str] = []

# Pages and notebooks
source_suffix = {".md": "myst-nb", ".rst": "restructuredtext"}
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "docs" / "_build" / "executed")
nb_execution_timeout = 60
nb_execution_raise_on_error = True
nb_merge_streams = True

# Docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False
toc_object_entries_show_parents = "hide"

# The look
html_theme = "furo"
html_title = f"elbogap {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["live"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it fetches pages, which browsers refuse where these lie on a disk
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
