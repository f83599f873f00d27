"""``python -m studies.linear_vae``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
