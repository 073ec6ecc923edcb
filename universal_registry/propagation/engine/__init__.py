"""What runs in a daemon: planning, claiming, dispatching, storing what became of it."""
