"""Metrics of sets of images by the features of a network."""
