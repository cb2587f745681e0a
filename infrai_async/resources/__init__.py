"""The resources of the client: each capability is a method of the same name."""
