"""From arguments to the frames of a group: headers, pixels, masters, and the first pass over them."""
