"""The shape of a STORM model, and the named sizes."""
