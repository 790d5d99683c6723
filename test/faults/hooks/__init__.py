"""This directory on PYTHONPATH: `sitecustomize` puts `file_operations` into every Python program that is started."""
