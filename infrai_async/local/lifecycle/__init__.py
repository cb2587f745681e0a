"""What runs beside the calls for as long as the gateway does."""
