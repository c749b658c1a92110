"""The second pass: warp, reject, combine."""
