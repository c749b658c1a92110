"""Looking at tiles: pictures, facts, checks."""
