"""Talking to a cluster from the demo and the end-to-end tests: kubectl, helm, port-forward, models.

Everything goes through the same commands a person would type, so a failure can be repeated by hand.
"""
