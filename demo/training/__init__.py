"""Training the demo checkpoint: stages, batches, the network with gradients, and its kernels."""
