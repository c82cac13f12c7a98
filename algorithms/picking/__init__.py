"""Finding particles in micrographs."""
