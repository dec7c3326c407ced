//! NVMe and PCI wire types: registers, commands, status, identify, features, log pages.
