"""Every parameter of the served API against real engines: none may end one.

``fields`` is the table of parameters and values, ``requests`` makes bodies of it (each value alone,
in pairs, in rows that cover all pairs), ``asking`` sends them and finds whoever ended an engine.
``tests/engine/test_parameters.py`` runs a part in ``make test``, ``__main__`` all of it.
"""
