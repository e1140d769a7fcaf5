"""One plain function per command, for a notebook as well as for the shell."""
