"""The commands of `scripts/accelerator.py`, one module each."""
