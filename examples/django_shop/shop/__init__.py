"""A shop that takes each order once and can be closed by a flag. Haptera keeps its orders, stock and flags."""
