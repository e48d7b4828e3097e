"""Gates: may this release be uploaded, may this download be used, by the rules of one file.

A gate demands a verification of some strength, and more: checks/ has them, one line each in its table.
To add a gate: its rules in a structure of their own, a field in policy.py, a command in parentage/cli.
"""
