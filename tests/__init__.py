"""Tests of the product from outside: what a user of the package and of the command line gets."""
