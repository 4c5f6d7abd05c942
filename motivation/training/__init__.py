"""One training step and everything it carries: trainer, engine, probes, ledger, optimizer state, processes."""
