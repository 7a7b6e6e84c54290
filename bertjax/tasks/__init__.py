"""Downstream tasks: readers of their data formats and their official scores."""
