"""congvan-gateway: the mail gateway on the official mailboxes of Vietnamese state agencies."""

__version__ = "0.1.0"
