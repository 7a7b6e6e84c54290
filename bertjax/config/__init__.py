"""Every setting of a run as frozen dataclasses, their parsing and their validation."""
