"""Argo CD for llmfleet: its settings from our scripts, and a real one as ordinary processes."""
