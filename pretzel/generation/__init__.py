"""Generation of text and images in one sequence, with the caches of both streams."""
