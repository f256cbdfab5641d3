"""The embedded real data: shards, their checksums and the scripts that made them."""

from pathlib import Path

DATA_DIR = Path(__file__).parent
"""Where the embedded shards lie."""
