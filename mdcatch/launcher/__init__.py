"""The launcher: one window to see the sessions that were found and to open one.

`model` knows everything and no Qt, `remote` sends the command, `window` shows the model. Closing
the window stops nothing. Source: architecture.md section 9.
"""
