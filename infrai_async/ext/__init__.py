"""Integrations with other packages, each with an extra of its own; nothing here is loaded until it is imported."""
