"""A raw row -> a prompt with its answers, whatever the row's form."""
