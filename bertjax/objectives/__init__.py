"""Losses as (sum, weight) terms."""
