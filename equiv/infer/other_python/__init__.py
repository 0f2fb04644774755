"""A model that another interpreter builds, with releases of its own: read and frozen there, compared here."""
