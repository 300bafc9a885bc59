"""Which machine this is, what the targets are, and what runs here."""
