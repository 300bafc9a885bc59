"""From checkpoint to engine: graphs, the reference record, and what each target needs of them."""
