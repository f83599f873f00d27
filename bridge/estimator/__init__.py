"""Models as scikit-learn's estimators."""
