"""What of the site is no test: pages that are written from the code, notebooks, and what only Sphinx can import."""

collect_ignore = ["_build", "api", "gallery", "companion", "live", "conf.py", "check_links.py"]
NEEDS_SPHINX = ("gallery", "mathematics", "names", "printed", "reference", "repository", "slides")
collect_ignore_glob = [f"_ext/{name}.py" for name in NEEDS_SPHINX]
