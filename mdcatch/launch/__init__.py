"""Opening a session: a folder of movies becomes a project, and its processing starts.

One request, three pipelines: `native` (this program), `relion` (RELION's Schemes) and `scipion`.
What is asked for is checked first (`checks`); what follows from the metadata is derived
(`mdcatch.reconcile`); the project is built beside its place and renamed into it, so that a failed
opening leaves nothing. Source: acquisition.md sections 1.9 to 1.12.
"""
