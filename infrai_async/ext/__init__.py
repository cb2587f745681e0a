"""Integrations with other packages, each with an extra of its own and loaded only when imported."""
