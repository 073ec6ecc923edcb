"""What `ureg doctor` looks at: a module for each part, each check a pure function of the facts."""
