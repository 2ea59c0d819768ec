"""Forks of algorithms, each in a file of its own, as a user would write them."""
