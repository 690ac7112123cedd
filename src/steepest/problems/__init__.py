"""Problems: what can be solved, and rewards that verify."""
