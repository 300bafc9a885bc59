"""Causal depthwise convolution with SiLU: the operator `storm::CausalConv1d`."""
