"""Runs: planning, compilation, training, checkpoints, resumption."""
