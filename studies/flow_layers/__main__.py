"""``python -m studies.flow_layers``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
