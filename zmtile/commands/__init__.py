"""The commands of `zmtile`, one module each."""
