"""Linear algebra that torch lacks or does at twice the cost: Gram matrices, leading eigenvalues, moments that add."""
