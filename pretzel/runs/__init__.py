"""One run of any LightningModule: configuration, seeds, exact resume, checkpoints, guards."""
