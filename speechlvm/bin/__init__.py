"""One thin program per stage: arguments in, one library call, files out."""
