"""Scans what llmfleet installs and renders with checkov; nothing here reaches a network."""
