"""Models of more than twelve layers, and the faults that porters make in them."""
