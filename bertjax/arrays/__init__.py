"""Trees of arrays by name, and integers that depend only on the place of an element."""
