"""Faults between the operator and the API server: the proxy that makes them, and the campaign.

Only tests live here: nothing of it is imported by the operator.
"""
