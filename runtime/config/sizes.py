"""Sizes that the runtime, the profiles that engines are built for, and the plan must agree on."""

VISION_BATCH = 8  # frames a run; more gain nothing on a CPU, and memory for activations grows with them
LARGEST_VISION_BATCH = 16  # frames, of the optimization profile
CHUNK = 256  # tokens of a prompt computed at once: more take memory for attention, fewer twice the time (docs/llm.md)
PAGED_CHUNK = 8192  # the same of runners that have a loop and a paged cache of their own
# Tokens by which the key-value buffers of ONNX Runtime grow: a step costs one copy, a token of room that is not used
# yet costs attention in every layer.
STEP = 512
