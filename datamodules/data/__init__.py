"""The shipped real data: shards, their checksums and the scripts that made them."""

from pathlib import Path

DATA_DIR = Path(__file__).parent
"""Folder of the shipped shards."""

NUM_SHARDS = {"train": 4, "val": 1, "test": 2}
"""Shards of each split."""
