"""One run: a config becomes a run folder."""
