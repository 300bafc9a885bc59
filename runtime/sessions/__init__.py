"""Ways to run one graph: a module for each package that does."""
