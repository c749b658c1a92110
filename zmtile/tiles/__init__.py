"""The tile: its planes, its provenance, and the file that holds them."""
