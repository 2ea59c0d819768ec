"""Tests run the notebooks at reduced size, unless PUREJAXRL_SAC_NOTEBOOKS is `full`."""

import os

os.environ.setdefault("PUREJAXRL_SAC_NOTEBOOKS", "short")
