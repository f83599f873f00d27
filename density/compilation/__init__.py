"""Compilation by ``torch.compile``: of functions, and of what the steps of a fit maximise."""
