"""The control socket: protocol, server, client, `nvmet-vdev ctl`."""
