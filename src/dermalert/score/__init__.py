"""Fast, light inference. Imports no training framework."""
