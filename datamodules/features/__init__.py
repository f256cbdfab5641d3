"""Features of pictures that are computed once, by ``pretzel data embed``, and read by every run."""
