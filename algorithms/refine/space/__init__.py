"""What refinement in three dimensions has of its own: volumes, slices, directions, orientations."""
