"""Given/when/then on a running cluster: real pods, real vLLM, real Envoy.

The tests of this folder share one LLMDeployment and run in the order of their files' numbers,
since every engine start costs half a minute and gigabytes.
"""
