"""The second pass on a GPU: the same planes as `zmtile.stacking` makes on the CPU."""
