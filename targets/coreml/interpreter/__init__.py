"""A reference interpreter of MIL programs: it computes what the program of a saved `.mlpackage` gives for an image.

It computes what the file says, in torch, on any machine. It is no Core ML: which unit runs an operator there, and how,
is Apple's to decide and not documented. Its results are labelled as simulated wherever they are shown.
"""
