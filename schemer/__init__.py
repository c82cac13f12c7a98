"""Schemes: their model and STAR form, the pure state machine, and the RELION project folder.

The core (`scheme`, `operators`, `resolve`, `state`, `machine`) does no input or output: time comes
with each stimulus, facts about files come from a `World`. `project`, `world`, `templates` and
`starfile.load` are the thin shell around it. Source: architecture.md sections 1 to 3.
"""
