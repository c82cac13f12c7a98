"""The training set of the class ranker: simulated particles, really classified, labelled by truth.

Source: class-ranker.md section 9.
"""
