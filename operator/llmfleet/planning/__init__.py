"""Pure decisions: ``decide(snapshot, now) -> Plan``.

Nothing in here does I/O, reads a clock, logs or draws random numbers: every input is in the
``Snapshot`` or is ``now``. May import only ``llmfleet.api``, the pure standard library and
numeric libraries.
"""
