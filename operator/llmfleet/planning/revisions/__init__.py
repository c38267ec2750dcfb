"""Revisions: their hash, their frozen copies, and what outlives the resource. No rollout here."""
