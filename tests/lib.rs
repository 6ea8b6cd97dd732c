//! Integration tests: each file beside this one is a test of its own; `support` holds what they share.
#![forbid(unsafe_code)]
