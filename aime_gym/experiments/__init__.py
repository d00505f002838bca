"""The jobs of the command line: recording data, training, evaluating and comparing agents.

Importing this room imports none of its modules, so that the command line can ask for one of them when it needs it.
"""
