"""``pretzel check``: the laws of one class, built from the command line."""
