"""``python -m studies.diffusion``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
