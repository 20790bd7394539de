"""One file a command: `add_options(parser)` declares its options, `run(args)` does its work."""
