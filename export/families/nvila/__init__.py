"""NVILA's video models on Qwen2: SigLIP, space-to-depth and an MLP, frames averaged over time, no temporal layers."""
