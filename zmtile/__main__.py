"""``python -m zmtile``."""

from zmtile.cli import main

main()
