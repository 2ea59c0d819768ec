"""Curves, episodes and value maps."""
