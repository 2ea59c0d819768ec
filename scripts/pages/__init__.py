"""The pages of results, one module per topic: a `summary` for the first page, and its own page."""
