"""Computations optimised for the compiler or the device."""
