"""Reports: a page that shows what a tile is and how it came about."""
