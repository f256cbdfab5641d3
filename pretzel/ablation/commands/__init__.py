"""What users call; only what parses cells or runs them imports torch."""
