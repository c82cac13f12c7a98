"""refine: maps in three dimensions while the session runs."""
