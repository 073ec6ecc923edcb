"""The rules of a lane: what an answer means, when to try again, when to stop. Pure."""
