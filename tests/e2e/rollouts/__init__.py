"""Rollouts that take minutes each: `make test-rollouts`, not part of `make test`."""
