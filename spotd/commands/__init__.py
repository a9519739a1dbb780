"""The subcommands, one per file. They ask and show; what they know comes from the client."""
