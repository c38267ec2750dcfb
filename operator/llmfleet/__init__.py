"""The llmfleet operator: turns LLMDeployments into served models.

Layers, lowest first (enforced by import-linter, see pyproject.toml):
``api`` (the resource), ``planning`` (pure decisions), ``cluster`` (effects),
``reconcile`` (one pass), ``tasks`` (when), ``handlers`` (the only importer of kopf).
"""

__version__ = "0.1.0"
