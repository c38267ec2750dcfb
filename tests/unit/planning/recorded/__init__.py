"""States of rollouts as the operator of November 2026 left them, and how each of them ended there.

``states/`` holds one file a state, ``foreign/`` statuses that no operator of ours has written,
``bodies.json`` the children that they share. ``record`` makes all of them with November's code;
nothing else here may depend on it.
"""
