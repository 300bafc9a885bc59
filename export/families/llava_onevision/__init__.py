"""LLaVA-OneVision and LLaVA-Video on Qwen2, their video path: SigLIP, a two-layer projector, bilinear pooling."""
