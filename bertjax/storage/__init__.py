"""Files: atomic writes, checksums and locks."""
