"""Manifests of everything made for an LLMDeployment. Decides nothing about rollouts."""
