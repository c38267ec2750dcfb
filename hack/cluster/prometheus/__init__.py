"""Prometheus of the local cluster: its image and its target discovery."""
