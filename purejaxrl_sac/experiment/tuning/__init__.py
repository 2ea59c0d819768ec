"""Sweeps and searches over hyperparameters."""
