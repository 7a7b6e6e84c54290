"""Trees of arrays by path, and integer hashes of array elements."""
