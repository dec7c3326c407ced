//! Namespace backends: null, ram, file and block device.
