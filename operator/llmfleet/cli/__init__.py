"""``kubectl llmfleet``: what the fleet does, for people, and the acts by which they take part.

It knows the resource (``llmfleet.api``) and nothing of the operator: whatever it shows stands in
status, and whatever it does is an annotation that ``kubectl annotate`` could write as well.
"""
