"""What a model needs on a device, and what to expect, before anything is built."""
