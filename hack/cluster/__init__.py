"""A real Kubernetes cluster on one machine: built, started, filled with images, and taken down."""
