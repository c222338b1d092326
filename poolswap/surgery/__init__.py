"""The flow's heart: calls are probed, become sites, are chosen into a plan, lifted where functional, and swapped."""
