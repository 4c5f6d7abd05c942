"""The files of a run: writing, reading, its config, its checkpoints."""
