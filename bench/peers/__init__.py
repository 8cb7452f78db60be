"""The runtimes that the benchmarks compare with, each run as its own documentation says."""
