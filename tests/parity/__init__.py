"""Comparisons with recorded reference numbers."""
