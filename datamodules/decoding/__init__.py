"""Decoding of raw samples into pictures and text."""
