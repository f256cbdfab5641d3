"""The laws, one module for each kind of part; a law is a function of a case."""
