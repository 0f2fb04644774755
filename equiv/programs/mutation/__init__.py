"""Program mutation: plant faults in programs by editing their jaxprs."""
