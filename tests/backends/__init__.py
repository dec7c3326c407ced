"""The backends that come with the package."""
