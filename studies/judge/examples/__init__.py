"""Files of models to be judged."""
