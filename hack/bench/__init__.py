"""Benchmarks: each a command that prints a table, one line per target, and saves a JSON."""
