"""What the commands of the command line do. Each module returns an exit code (see ``wetread.cli``)."""
