import os

# gRPC writes to the standard error each time that a server says goodbye; it reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
