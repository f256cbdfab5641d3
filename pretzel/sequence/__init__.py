"""Sequences of text and images: documents, special tokens, positions, packed batches."""
