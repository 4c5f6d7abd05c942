"""Two networks in one storage: which slice of the motivated network each base tensor is, and how they switch."""
