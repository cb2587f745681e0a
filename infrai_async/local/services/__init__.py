"""The services that implement the capabilities, and the executor that carries out each call once."""
