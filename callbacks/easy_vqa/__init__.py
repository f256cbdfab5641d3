"""Metrics of easy-VQA: a judge of coloured shapes, and what is measured with it."""
