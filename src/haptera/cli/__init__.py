"""The command line: ``haptera``, one file for each command. A command's module is imported when it is run."""
