"""Reading of raw samples from shards."""
