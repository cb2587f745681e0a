"""Stored objects: where their bytes are kept, how URLs are signed, how bodies are streamed."""
