"""Acts in the middle of rollouts, on the local cluster, under load; every status is read.

``python -m tests.acts --strategy NAME --scenario NAME``.
"""
