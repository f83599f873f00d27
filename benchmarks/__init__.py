"""How fast the models are, beside the libraries that people would use instead."""
