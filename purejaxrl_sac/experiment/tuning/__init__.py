"""Hyperparameter sweeps and searches."""
