"""A seeded microscope: movies and sessions of which everything is known."""
