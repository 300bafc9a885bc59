"""BIMBA-LLaVA: LLaVA-Video with a selector of one bidirectional Mamba layer in front of the language model."""
