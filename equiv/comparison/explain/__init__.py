"""Where a refuted candidate first differs: in its equations and in its values; and which causes were tried."""
