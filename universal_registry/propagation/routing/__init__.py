"""Who gets what: targets, routes, audiences, and the plan of one line of the log. Pure."""
