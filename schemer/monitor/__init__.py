"""Watching a Scheme and acting on it: in a terminal (`terminal`) and in a window (`window`).

Both show the same `schemer.overview.Overview` and call the same `actions`; what they offer is
what RELION's scheme window offers. Source: schemes.md section 18.
"""
