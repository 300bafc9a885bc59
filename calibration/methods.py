"""What the command line says of calibrating, without loading it: the methods' names, and the least that is enough."""

from typing import Literal

Method = Literal["minmax", "percentile", "entropy", "mse"]
MIN_SAMPLES = 8  # clips
MIN_FRAMES = 32  # that differ and show something: fewer say nothing of what a layer will see
