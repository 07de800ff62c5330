"""Known pre- and post-processing of public models: our code around other people's networks."""
