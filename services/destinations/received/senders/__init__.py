"""The systems that send webhooks, a module for each: its `SENDER` is a subclass of `Sender`, and its name that of the module."""
