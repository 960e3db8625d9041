"""The command `pmp`: runs the whole mesh on one machine, and looks after a running one."""
