"""``python -m studies.gradient_estimators``."""

from studies.kit.run import main

raise SystemExit(main(__package__))
