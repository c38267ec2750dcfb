"""Zero lost: constant load while parts of the cluster are killed; every request is counted.

``python -m tests.zerolost --engine stub|vllm --scenario NAME|all``, on the local cluster.
"""
