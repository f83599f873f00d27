"""``python -m studies.decomposition``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
