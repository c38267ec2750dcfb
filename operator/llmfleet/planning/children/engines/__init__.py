"""Engine pods, an engine a file."""
