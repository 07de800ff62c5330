"""Real servers for tests: each started as a process of its own on a free loopback port, ended with its parent."""
