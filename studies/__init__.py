"""Questions asked of the models; one folder a question, run with ``python -m studies.<name>``."""
