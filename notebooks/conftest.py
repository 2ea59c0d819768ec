"""Tests run the notebooks with smaller numbers, unless PUREJAXRL_SAC_NOTEBOOKS says `full`."""

import os

os.environ.setdefault("PUREJAXRL_SAC_NOTEBOOKS", "short")
