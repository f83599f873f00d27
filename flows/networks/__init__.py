"""Networks of flows: masked ones, evaluation with points as columns, inversion by degree."""
