"""Control of a target that runs: JSON-RPC 2.0 over a UNIX stream socket (docs/control.md).

``server`` serves it beside a target, ``client`` speaks to it, ``methods`` says what there is. Nothing here is
on the data path: the target's threads never wait for anything of this package.
"""
