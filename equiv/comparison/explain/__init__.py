"""Where a refuted candidate first differs: in its equations, and in the values that they compute."""
