"""Failures on purpose: stages that are stopped and killed, file operations that fail.

tiny        a recipe whose stages take seconds, and copies of what it has written after each of them
results     what a finished stage must give again to the bit, and whether files are whole
processes   starting a command so that all that it starts can be found, and killed
hooks       the n-th file operation of Python programs: killed, failing, or held
"""
