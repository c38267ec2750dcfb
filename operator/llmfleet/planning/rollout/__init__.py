"""From the served revision to the wanted one: states, acts, steps, split. No manifests here."""
