"""WebDataset datamodules and the embedded real data."""
