"""The command line: one module a command. ``main`` finds them by name; nothing is imported here."""
