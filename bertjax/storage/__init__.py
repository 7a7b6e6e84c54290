"""Files: atomic writes, locks."""
