"""Forks of algorithms, one per file, as a user would write them."""
