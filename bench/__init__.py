"""`make bench`: what the product does, beside a limit or a peer, in one run on one machine."""
