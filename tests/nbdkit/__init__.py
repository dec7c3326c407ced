"""Plugins written for nbdkit, beside nbdkit itself."""
