"""What comes in and what goes out: a matrix, batch or operator, scaled, with random numbers, results and errors."""
