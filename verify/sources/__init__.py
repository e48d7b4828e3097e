"""Where releases and parents are found: a folder, a Hub cache snapshot, a repository of a Hub.

To add a source: a file here that brings its files to disk and hashes every byte on the way, and a
scheme in place.py.
"""
