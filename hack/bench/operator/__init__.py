"""`make bench-operator`: thousands of LLMDeployments on KWOK's nodes and a real API server."""
