"""The API's capabilities as methods of the same name."""
