"""Hostile requests by the hundred thousand at a real router, and what it may answer."""
