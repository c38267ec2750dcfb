"""``kubectl llmfleet doctor``: what an installation lacks, and what mends it.

Each check asks the API server as whoever runs it may, changes nothing, and says what it cannot
know. Nothing here is judged by the operator's own code: only by what anybody can see of it.
"""
