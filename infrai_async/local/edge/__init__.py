"""The caching edge that serves distributions in front of their origins."""
