"""Configuration files: read with their lines, laid over each other, mistakes explained."""
