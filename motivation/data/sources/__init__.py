"""Data sets by name: in memory (digits, CIFAR, arrays) and in files (folders, WebDataset, Oxford)."""
