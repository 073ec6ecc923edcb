"""Arrived means running: what comes from a registry elsewhere becomes files, blocks and links of this machine.

`plan` is what this machine's owner allows; the registry never widens it. `wanted` works out what should stand where,
`places` says where anything may stand, `placing` puts it there and takes it back when it does not do; `agent` is all of
it, with the state from one run to the next.
"""
