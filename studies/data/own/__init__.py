"""One's own data: a table in a file, with words, missing values, comments and names as people have them."""
