"""Fault injection and rate limits, for testing how a program handles them."""
