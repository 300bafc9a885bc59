"""The language model as a Hugging Face folder, which vLLM and other engines read."""
