"""stream.simulate: logs whose truth is known."""
