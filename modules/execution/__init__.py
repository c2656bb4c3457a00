"""What the execution of orders is made of, without the authority over it."""
