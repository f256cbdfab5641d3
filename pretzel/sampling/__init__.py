"""Sampling, outside the models: caches, samplers, guidance, denoisers."""
