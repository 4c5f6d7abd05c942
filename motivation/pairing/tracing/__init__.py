"""How a network divides the axes of its tensors (heads, groups, q/k/v), read off one traced forward pass."""
