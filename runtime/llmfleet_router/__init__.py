"""The router of one LLMDeployment: Envoy, and the agent that tells it what to serve.

Lives here: Envoy's configuration, the ordered updates of its xDS files, the watch of the traffic
command and the endpoints, the agent's own port, the graceful end. Nothing here may import
``llmfleet`` or ``llmfleet_runtime``: the programs share docs/contract.md, not code.
"""
