"""The demonstration: a fictitious province with its own certificates, documents and messages, all made at run time."""
