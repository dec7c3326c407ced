//! A vfio-user server and client: wire format, framing, connections, reactor.
