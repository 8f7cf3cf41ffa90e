"""Plan a run before it is trained: parameters, operations, memory and time."""
