"""The language model for TensorRT-LLM 1.2, the last line that compiles engines: its checkpoint, and its compiler."""
