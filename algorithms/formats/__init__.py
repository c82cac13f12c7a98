"""The file formats of the field."""
