"""Tampered certificates, and an oracle that says of those that are accepted whether they are true all the same.

A tampering changes one thing and renews the digests, as who knows the format would. What is accepted is true if it
claims no more than the certificate did, of the same programs; or if both programs, evaluated operation by operation on
random inputs, give the same numbers.
"""
