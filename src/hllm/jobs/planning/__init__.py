"""Planning says what a recipe will cost before it is trained: parameters, operations, memory and time."""
