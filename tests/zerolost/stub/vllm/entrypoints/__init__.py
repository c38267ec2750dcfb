"""Stands in for vLLM in the image of the zero-lost tests; see api_server."""
