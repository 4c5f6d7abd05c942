"""Measurements, not tests: each prints its numbers and the bound it is held against."""
