"""What a listener is told of calls while they run."""
