"""Whether a revision is worse: numbers in, a verdict out. Knows nothing of rollouts."""
