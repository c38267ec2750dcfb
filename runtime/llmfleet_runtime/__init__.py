"""The runtime: starts vLLM with llmfleet's plugins, watches over it, and ends it gracefully.

Two processes live in an engine pod. The supervisor (PID 1; ``supervisor`` and what it uses) never
imports vLLM. vLLM's API server is its child and loads ``middleware`` and ``vllm_plugins`` through
vLLM's own extension points. Nothing here imports ``llmfleet``: operator and runtime share
docs/contract.md, not code.
"""
