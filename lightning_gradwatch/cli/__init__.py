"""The command line: `gradwatch report`, `check`, `ls`, `demo` and `replay`."""
