"""Imported by Python as it starts."""

import file_operations

file_operations.install_from_environment()
