"""The tables of experiments/: planned as cells, trained where missing, rendered."""
