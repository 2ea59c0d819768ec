"""Figures of runs, rendered episodes and value maps."""
