"""The command line declares options and prints: one module for each verb."""
