"""What people say: targets, routes, sessions, and words to lanes."""
