//! Python bindings of nvmet-vdev.
