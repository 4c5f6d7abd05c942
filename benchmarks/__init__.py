"""Measurements, not tests: each prints its numbers and the bound it is held against.

Installed as `motivation.benchmarks`; `motivation bench` lists them and runs one."""
