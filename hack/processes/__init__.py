"""llmfleet's own programs as ordinary processes beside ``hack.controlplane``.

For tests and benchmarks. Each holds exactly the rights that the chart or the operator gives it.
"""
