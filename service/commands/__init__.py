"""One module for each `prototide` command; each imports what it needs only when it runs."""
