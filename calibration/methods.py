"""The names of the methods, for the command line to offer without loading them."""

from typing import Literal

Method = Literal["minmax", "percentile", "entropy", "mse"]
