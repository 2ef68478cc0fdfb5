"""What an influence computation will take, before it is run: time, memory, storage and traffic."""
