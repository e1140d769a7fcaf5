"""Training: from slices to checkpoints. Inference needs nothing of it."""
