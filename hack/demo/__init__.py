"""`make demo`: from nothing to answered requests, told step by step."""
