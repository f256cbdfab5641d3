"""Lightning callbacks: metrics during training, samples, weight averaging."""
