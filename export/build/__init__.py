"""From a bundle to an engine: what every target shares here, what one kind of engine needs in its folder."""
