"""Pages about a session: one of the whole, and one of each micrograph."""
