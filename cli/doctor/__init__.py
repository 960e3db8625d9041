"""`pmp doctor`: examines a running mesh, and says of each finding what to do.

A check is an asynchronous generator of findings, given what there is to examine; `examination.CHECKS` names them all.
"""
