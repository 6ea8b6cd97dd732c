//! The runtime on files and virtual time.
