"""Streams of batches: the order of training data, evaluation, worker processes."""
