"""Given/when/then on a running cluster: real pods, real vLLM, real Envoy.

Most tests of this folder share one LLMDeployment and run in the order of their files' numbers,
since every engine start costs half a minute and gigabytes. Files whose tests make fleets of their
own are named in ``sharing.OWN_FLEETS``: with ``-n 3`` they run beside.
"""
