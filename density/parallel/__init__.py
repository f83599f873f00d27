"""One computation on several processes, with random streams that do not depend on how many there are."""
