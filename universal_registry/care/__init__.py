"""What keeps a registry well for years: backups, restoring, drills, moving, and looking after it."""
