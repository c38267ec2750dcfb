"""How many replicas are wanted: facts in, a number with its reason out. Makes and removes none."""
