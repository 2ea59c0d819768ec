"""Computations written for the compiler and the device rather than for the reader."""
