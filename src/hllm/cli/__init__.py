"""The command line: a thin layer over `hllm.api`, one module for each group of verbs."""
