"""What is written for a receiver: CloudEvents, formats, templates. Pure."""
