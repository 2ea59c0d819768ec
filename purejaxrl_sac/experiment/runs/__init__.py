"""Runs: planned, compiled, trained, kept and resumed."""
