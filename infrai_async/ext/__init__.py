"""Integrations with other packages, each behind an extra of its own; nothing here is loaded unless it is imported."""
