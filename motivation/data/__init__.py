"""Data sets in memory, and the loader that keeps them on the device."""
