"""Settings of the unit tests: the same examples in every run.

What chance finds belongs to the campaigns (``make test-histories`` and its like), each failure
with a seed, and comes here as an ``@example``: a gate that fails for what nobody changed stops
everybody.
``pytest tests/unit --hypothesis-profile=default`` draws anew.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.load_profile("same")
