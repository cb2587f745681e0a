"""The caching edge in front of a distribution's origin."""
