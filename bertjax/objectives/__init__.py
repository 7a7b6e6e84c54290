"""Losses as terms: sums with their weights."""
