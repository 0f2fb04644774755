"""The backend of Haiku."""
