"""Which recipes a sweep can propose."""
