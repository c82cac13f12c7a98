"""Auto-refinement: two halves of the particles, each with its own map, until nothing improves.

Source: refinement.md section 5.
"""
