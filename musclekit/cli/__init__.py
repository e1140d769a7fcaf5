"""The command line: parse, convert, call a workflow, print."""
