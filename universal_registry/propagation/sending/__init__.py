"""One attempt: read the line, write it for the format, seal, sign, hand it to a transport."""
