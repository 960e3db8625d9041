"""The mesh as a service of a machine that systemd runs: installed, upgraded, and removed again."""
