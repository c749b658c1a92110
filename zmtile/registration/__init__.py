"""From star lists to the place of every frame."""
