"""Faults on purpose: each kind is a module with `run(campaign)`; test/faults.sh runs them, small parts are tests.

tiny        a recipe whose stages take seconds, and copies of what it has written after each of them
results     what a finished stage must give again to the bit, and whether files are whole
processes   starting a command so that all that it starts can be found, and killed
hooks       the n-th file operation of Python programs: killed, failing, or held
campaign    options, counts and violations
"""
