"""The process of one run: trains, tests, checkpoints, reports, and stops when asked."""
