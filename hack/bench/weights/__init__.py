"""`make bench-weights-load`: weight changes and aborts of a canary, under constant load."""
