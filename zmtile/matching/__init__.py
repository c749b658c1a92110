"""From places and measurements to flux scales, sky surfaces and weights."""
