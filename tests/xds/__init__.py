"""Random valid resources, rendered by planner and router, and Envoy's own verdict on them."""
