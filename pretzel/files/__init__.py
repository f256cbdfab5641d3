"""Files: written whole or not at all, weights read without code, content hashes."""
