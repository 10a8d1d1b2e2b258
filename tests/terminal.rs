//! The chat on a terminal.
