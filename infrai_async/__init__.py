"""The Python SDK for Infrai."""
