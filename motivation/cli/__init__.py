"""The `motivation` command."""
