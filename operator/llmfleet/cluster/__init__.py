"""Effects: everything that talks to the API server, to routers, or to a clock.

``observe`` gathers a ``Snapshot``, ``apply`` performs a ``Plan``. What to do is decided elsewhere
(``llmfleet.planning``); nothing in here decides a rollout, a weight or a number of replicas, and
nothing in here imports kopf.
"""
