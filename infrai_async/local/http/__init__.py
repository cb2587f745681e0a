"""The HTTP layer below the services: routing, parameters, the envelope, conditional requests and the host guard."""
