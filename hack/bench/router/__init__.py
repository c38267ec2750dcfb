"""`make bench-router`: this router against others, on the same two cores, in alternating rounds."""
