"""The operators of STORM's temporal encoder, one folder each, in every form they are needed in."""
