"""The command line: one file per subject. Errors are one clear sentence and an exit code."""
