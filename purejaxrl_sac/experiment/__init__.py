"""The host side: a run as compiled chunks, with progress, records, statistics and pictures.

The pure core imports nothing of this.
"""
